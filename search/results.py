"""What a search found: the ranked table, the winner, the costs. All of it read off the study."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trainer.config import TrainConfig

from .asha import rungs
from .config import SearchConfig
from .space import Space, Values, walk
from .study import End, TrialRecord

CANDIDATES = {End.FINISHED, End.PRUNED, None}
"""Ends of trials whose checkpoint may win; None is a trial interrupted by the search's end."""


@dataclass(frozen=True)
class Row:
    """One trial in the table."""

    rank: int
    """From 1; trials of higher rungs first, then by AP."""
    record: TrialRecord
    values: Values
    """By dotted field."""
    rung: int
    """Unfreeze epochs of the highest rung reached."""

    @property
    def state(self) -> str:
        return self.record.end.value if self.record.end else "interrupted"

    @property
    def map(self) -> float | None:
        return self.record.best.map if self.record.best else None


@dataclass(frozen=True)
class Costs:
    """What a search ran, and what it did not have to."""

    trials: int
    run: int
    """Epochs trained."""
    forked: int
    """Epochs taken over from an equal phase."""
    stopped: int
    """Epochs that stopped trials did not run."""
    seconds: float
    """Of training and evaluation, added up over trials."""


@dataclass(frozen=True)
class SearchResult:
    """What a search came to."""

    config: SearchConfig
    space: Space
    rows: list[Row]
    """All trials, best first."""
    winner: Row | None
    metrics: dict[str, Any]
    """The winner's figures, measured from its export: by split, `figures` and `per_class`."""
    costs: Costs
    state: str
    """`done`, `out of time` or `interrupted`."""


def values_of(space: Space, written: TrainConfig, parameters: Values) -> Values:
    """A trial's values by dotted field, from its parameters under Optuna's names."""
    return walk(space, written, lambda dimension, value: parameters.get(dimension.parameter, value))


def rank(config: SearchConfig, space: Space, records: Iterable[TrialRecord]) -> list[Row]:
    """All trials, those that can win first: by highest rung reached, then by best AP.

    A trial stopped early is not compared with one that was given more epochs.
    """
    asha = config.search.asha
    heights = [] if asha == "off" else rungs(asha, config.train.unfreeze.epochs)

    def height(record: TrialRecord) -> int:
        return max([h for h in heights if h <= record.unfreeze_epoch], default=0)

    def key(record: TrialRecord) -> tuple[bool, int, float, int]:
        best = record.best
        able = record.end in CANDIDATES and best is not None
        return able, height(record), best.map if best else -1.0, -record.number

    ordered = sorted(records, key=key, reverse=True)
    return [
        Row(i, record, values_of(space, config, record.parameters), height(record))
        for i, record in enumerate(ordered, start=1)
    ]


def winner(rows: list[Row]) -> Row | None:
    """The best trial among those that reached the highest rung; None where none can win."""
    able = [row for row in rows if row.record.end in CANDIDATES and row.map is not None]
    return able[0] if able else None


def costs(config: SearchConfig, records: Iterable[TrialRecord]) -> Costs:
    """What the search cost."""
    records = list(records)
    reports = [report for record in records for report in record.reports.values()]
    whole = config.train.head.epochs + config.train.unfreeze.epochs
    return Costs(
        trials=len(records),
        run=sum(not report.forked for report in reports),
        forked=sum(report.forked for report in reports),
        stopped=sum(whole - len(record.reports) for record in records if record.end is End.PRUNED),
        seconds=sum(report.seconds for report in reports if not report.forked),
    )


def columns(space: Space) -> dict[str, str]:
    """Searched fields and their headings: the shortest tails that tell them apart."""
    names = list(dict.fromkeys(dimension.name for dimension in space))
    return {name: _short(name, names) for name in names}


def _short(name: str, names: list[str]) -> str:
    parts = name.split(".")
    for length in range(1, len(parts)):
        tail = ".".join(parts[-length:])
        if sum(other == tail or other.endswith("." + tail) for other in names) == 1:
            return tail
    return name


def show(value: Any) -> str:
    """A value in a table: two significant digits for a float, `-` where it has no effect."""
    if value is None:
        return "-"
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def markdown(space: Space, rows: list[Row]) -> str:
    """The table as Markdown."""
    heads = columns(space)
    lines = [
        "| rank | trial | val AP | AP50 | epoch | rung | "
        + " | ".join(heads.values())
        + " | state |",
        "|" + " --- |" * (7 + len(heads)),
    ]
    for row in rows:
        best = row.record.best
        figures = [f"{best.map:.4f}", f"{best.map_50:.4f}", str(best.epoch)] if best else ["-"] * 3
        cells = [str(row.rank), trial_name(row), *figures, str(row.rung)]
        cells += [show(row.values.get(name)) for name in heads]
        lines.append("| " + " | ".join([*cells, row.state]) + " |")
    return "\n".join(lines) + "\n"


def trial_name(row: Row) -> str:
    """`#3`, with where it came from when it was not sampled."""
    origin = row.record.origin
    return f"#{row.record.number}" + ("" if origin == "sampled" else f" {origin}")
