"""How trials, their values and their figures are written in tables and sentences."""

from statistics import stdev
from typing import Any

from trainer.text import escaping

from ..ranking.contenders import BASELINE
from ..ranking.row import Row
from ..space.space import Space
from ..study.record import TrialRecord


def column_headings(space: Space) -> dict[str, str]:
    """Searched fields and their headings: the shortest ends of their names that differ."""
    names = list(dict.fromkeys(dimension.name for dimension in space))
    return {name: _shortest_end(name, names) for name in names}


def _shortest_end(name: str, names: list[str]) -> str:
    parts = name.split(".")
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if sum(other == end or other.endswith("." + end) for other in names) == 1:
            return end
    return name


def show_value(value: Any) -> str:
    """A value in a table: two significant digits for a float, `-` for one without effect."""
    if value is None:
        return "-"
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def show_figure(value: float | None) -> str:
    """A COCO figure with three digits, `-` for one that cannot be measured."""
    return "-" if value is None else f"{value:.3f}"


def show_mean(row: Row) -> str:
    """`0.551±0.004`, mean and standard deviation of fresh runs; `0.551` for one, else empty."""
    if row.mean is None:
        return ""
    return f"{row.mean:.3f}" + (f"±{stdev(row.maps):.3f}" if len(row.maps) > 1 else "")


def show_settings(row: Row, space: Space) -> str:
    """`lr 0.001, depth 3`: the searched values of a trial, those without effect left out."""
    headings = column_headings(space).items()
    return ", ".join(
        f"{heading} {show_value(row.values[name])}"
        for name, heading in headings
        if name in row.values
    )


def trial_name(row: Row) -> str:
    """`#3`, with its origin when it was not sampled: `#0 baseline`."""
    origin = {"sampled": "", BASELINE: " baseline"}.get(row.record.origin, f" {row.record.origin}")
    return f"#{row.record.number}{origin}"


def error_line(record: TrialRecord) -> str:
    """The last line of what went wrong in a trial, empty when nothing did."""
    return (record.text.strip().splitlines() or [""])[-1]


def markdown(space: Space, rows: list[Row]) -> str:
    """The ranked table as Markdown."""
    headings = column_headings(space)
    lines = [
        "| rank | trial | val AP | AP50 | epoch | rung | fresh mean | "
        + " | ".join(headings.values())
        + " | state |",
        "|" + " --- |" * (8 + len(headings)),
    ]
    for row in rows:
        best = row.record.best
        figures = [f"{best.map:.4f}", f"{best.map_50:.4f}", str(best.epoch)] if best else ["-"] * 3
        cells = [str(row.rank), trial_name(row), *figures, str(row.rung), show_mean(row)]
        cells += [escaping.escape_markdown(show_value(row.values.get(name))) for name in headings]
        lines.append("| " + " | ".join([*cells, row.state]) + " |")
    return "\n".join(lines) + "\n"
