"""How trials, their figures and what they cost are written in tables and sentences."""

from statistics import stdev
from typing import Any

from trainer.text import escaping
from trainer.text.counts import counted

from ..ranking.contenders import BASELINE
from ..ranking.costs import Costs
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


# -- costs -----------------------------------------------------------------------------------------


def cost_lines(spent: Costs) -> str:
    """What a search cost, in lines for a terminal."""
    hours = f"{spent.cpu_hours:.2f} CPU-hours"
    if spent.gpu_hours:
        hours = f"{spent.gpu_hours:.2f} GPU-hours"
    trials = counted(spent.trials, "trial")
    line = f"{trials}; {spent.epochs_run} epochs trained in {hours}, {spent.epochs_forked} forked"
    if spent.epochs_not_run:
        line += f", {spent.epochs_not_run} not run since ASHA stopped their trials"
    lines = [line]
    if spent.images_from_cache:
        lines.append(
            f"frozen stages read from files for {spent.images_from_cache:,} pictures, not run again"
        )
    lines += filter(None, [time_saved(spent)])
    return "\n".join(lines)


def cost_sentences(spent: Costs) -> str:
    """What a search cost, in sentences for the report; empty before its first epoch."""
    if not spent.epochs_run + spent.epochs_forked + spent.epochs_not_run:
        return ""
    text = (
        f"Its {spent.trials} trial{'s' * (spent.trials > 1)} trained {spent.epochs_run} epochs; "
        f"{spent.epochs_forked} were forked, which means taken over from another trial"
    )
    if spent.epochs_not_run:
        text += f", and {spent.epochs_not_run} were not run, since ASHA had stopped their trials"
    text += "."
    if spent.images_from_cache:
        pictures = f"{spent.images_from_cache:,} pictures"
        text += f" For {pictures} the frozen stages were read from files, not run."
    line = time_saved(spent)
    return text + (f" {line[0].upper()}{line[1:]}." if line else "")


def time_saved(spent: Costs) -> str:
    """`training took 3 min of trials' time; without forks and stops about 6 min`.

    Empty where nothing was saved.
    """
    if spent.seconds_without_savings <= spent.seconds:
        return ""
    what = "forks, stops and cached features" if spent.counts_cached_features else "forks and stops"
    return (
        f"training took {duration(spent.seconds)} of trials' time; without {what} about "
        f"{duration(spent.seconds_without_savings)}"
    )


def duration(seconds: float) -> str:
    """`40 s`, `14 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
