"""What a search found: the ranked table and the winner. All of it read off the study."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from trainer.config import TrainConfig
from trainer.text import escaping

from ..space.config import SearchConfig
from ..space.space import Space, Values, apply, by_field
from ..study.study import End, TrialRecord
from .asha import rungs
from .costs import Costs

CANDIDATES = {End.FINISHED, End.PRUNED, None}
"""Ends of trials whose checkpoint may win; None is a trial interrupted by the search's end."""


@dataclass(frozen=True)
class Row:
    """One trial in the table."""

    rank: int
    """Of the configuration, from 1: see `rank`."""
    record: TrialRecord
    values: Values
    """By dotted field."""
    rung: int
    """Unfreeze epochs of the highest rung reached."""
    fresh: tuple[TrialRecord, ...] = ()
    """The finished runs that confirm the configuration; empty while one of them has no end. The run
    that it was chosen by is none of them: of that, luck is a part."""

    @property
    def maps(self) -> list[float]:
        """Val AP of each fresh run at its best epoch."""
        return [_best_map(run) for run in self.fresh]

    @property
    def mean(self) -> float | None:
        """Of `maps`."""
        return mean(self.maps) if self.fresh else None

    @property
    def by_map(self) -> list[TrialRecord]:
        """All runs of the configuration, the best first."""
        return sorted((self.record, *self.fresh), key=_best_map, reverse=True)

    @property
    def best_run(self) -> TrialRecord:
        """The run whose checkpoint is the configuration's best."""
        return self.by_map[0]

    @property
    def state(self) -> str:
        return self.record.end.value if self.record.end else "interrupted"

    @property
    def map(self) -> float | None:
        return self.record.best.map if self.record.best else None

    @property
    def score(self) -> float | None:
        """The val AP to tell: of the fresh runs where there are any."""
        return self.map if self.mean is None else self.mean


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
    """`done`, `out of time`, `stopped`, `interrupted`, `failed` or `disk full`."""
    reason: str = ""
    """Why it failed."""


def state_in(search: str, row: Row) -> str:
    """A trial's state in a search of this state: without an end it is under way, or interrupted, or
    has come to no epoch."""
    if row.record.end is None and not row.record.reports:
        return "no epoch yet"
    return "under way" if search == "running" and row.record.end is None else row.state


def config_of(config: SearchConfig, record: TrialRecord, precision: str) -> TrainConfig:
    """The whole configuration that a trial trained with."""
    values = by_field(record.parameters) | {"train.precision": precision}
    if record.seed is not None:
        values["train.seed"] = record.seed
    return apply(config, values)


def order(config: SearchConfig, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials, those that can win first: by highest rung reached, then by best AP.

    A trial stopped early is not compared with one that was given more epochs.
    """

    def key(record: TrialRecord) -> tuple[bool, int, float, int]:
        able = record.end in CANDIDATES and record.best is not None
        return able, _height(config, record), _best_map(record), -record.number

    return sorted(records, key=key, reverse=True)


def leaders(config: SearchConfig, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The first configurations in `order` that ran all their epochs, as many as `search.confirm`
    wants. Of one that was sampled twice, the better trial; of the one as written, its own."""
    confirm = config.search.confirm
    if confirm == "off":
        return []
    records = [r for r in records if r.confirms is None]
    written = written_trial(records)
    seen = [written.parameters] if written else []
    found: list[TrialRecord] = []
    for record in order(config, records):
        finished = record.end is End.FINISHED and record.best is not None
        if finished and (record is written or record.parameters not in seen):
            seen.append(record.parameters)
            found.append(record)
    return found[: confirm.top]


def to_confirm(config: SearchConfig, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The leaders, and the configuration as written, which they are compared with; also where ASHA
    stopped it, but not where it failed."""
    records = list(records)
    found = leaders(config, records)
    written = written_trial(records)
    if found and written not in found and written and written.end in {End.FINISHED, End.PRUNED}:
        found.append(written)
    return found


def written_trial(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial of the configuration as written."""
    return next((record for record in records if record.origin == "as written"), None)


def may_win(config: SearchConfig, records: Iterable[TrialRecord]) -> set[int]:
    """Numbers of the trials of which one has, or will have, the winner's checkpoint: the first in
    `order`, also of those that ended, for others may yet diverge; those to be confirmed, and all
    runs of what was confirmed."""
    records = list(records)
    searched = order(config, (r for r in records if r.confirms is None))
    found = {r.number for r in searched[:1]}
    found |= {r.number for r in [r for r in searched if r.end in CANDIDATES - {None}][:1]}
    found |= {r.number for r in to_confirm(config, records)}
    for record in records:
        if record.confirms is not None:
            found |= {record.number, record.confirms}
    return found


def _height(config: SearchConfig, record: TrialRecord) -> int:
    asha = config.search.asha
    heights = [] if asha == "off" else rungs(asha, config.train.unfreeze.epochs)
    return max([h for h in heights if h <= record.unfreeze_epoch], default=0)


def _best_map(record: TrialRecord) -> float:
    return record.best.map if record.best else -1.0


def rank(config: SearchConfig, records: Iterable[TrialRecord]) -> list[Row]:
    """All trials in order of their configurations, behind each the runs that confirm it: as in
    `order`, and once all that are to be confirmed are, confirmed ones first, by the mean AP of
    their fresh runs."""
    records = list(records)
    fresh = _fresh(records)
    searched = order(config, (r for r in records if r.confirms is None))
    again = _confirming(records)
    best = leaders(config, records)
    runs = [run for first in to_confirm(config, records) for run in again[first.number]]
    all_ended = all(run.end is not None for run in runs)
    if best and all_ended and all(again[record.number] for record in best):
        # sorting is stable: what is not confirmed, or failed at it, stays in order
        searched.sort(
            key=lambda r: mean(map(_best_map, fresh[r.number])) if r.number in fresh else -1.0,
            reverse=True,
        )
    rows = []
    for place, first in enumerate(searched, start=1):
        for record in (first, *sorted(again[first.number], key=lambda r: r.number)):
            rows.append(
                Row(
                    place,
                    record,
                    by_field(record.parameters),
                    _height(config, record),
                    fresh.get(record.number, ()),
                )
            )
    return rows


def _fresh(records: list[TrialRecord]) -> dict[int, tuple[TrialRecord, ...]]:
    """The runs that confirm each configuration and finished, once all of these have ended."""
    return {
        number: finished
        for number, runs in _confirming(records).items()
        if all(run.end is not None for run in runs)
        and (finished := tuple(run for run in runs if run.end is End.FINISHED))
    }


def _confirming(records: list[TrialRecord]) -> defaultdict[int, list[TrialRecord]]:
    """The trials that confirm each number."""
    found = defaultdict(list)
    for record in records:
        if record.confirms is not None:
            found[record.confirms].append(record)
    return found


def winner(rows: list[Row]) -> Row | None:
    """The best configuration's row: of the confirmed ones that of the best fresh mean, else the
    best trial among those that reached the highest rung; None where none can win."""
    able = [row for row in rows if row.record.end in CANDIDATES and row.map is not None]
    return able[0] if able else None


def identity(row: Row) -> dict[str, int]:
    """Which checkpoint a configuration's export is to be of."""
    run = row.best_run
    return {"trial": run.number, "epoch": run.best.epoch if run.best else 0}


def is_of(metrics: dict[str, Any], row: Row) -> bool:
    """Whether figures are of the export of this configuration, as it stands; where its checkpoint
    was gone, `of` says which one stood in."""
    return bool(metrics) and metrics.get("for", metrics.get("of")) == identity(row)


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
        "| rank | trial | val AP | AP50 | epoch | rung | fresh mean | "
        + " | ".join(heads.values())
        + " | state |",
        "|" + " --- |" * (8 + len(heads)),
    ]
    for row in rows:
        best = row.record.best
        figures = [f"{best.map:.4f}", f"{best.map_50:.4f}", str(best.epoch)] if best else ["-"] * 3
        cells = [str(row.rank), trial_name(row), *figures, str(row.rung), show_mean(row)]
        cells += [escaping.markdown(show(row.values.get(name))) for name in heads]
        lines.append("| " + " | ".join([*cells, row.state]) + " |")
    return "\n".join(lines) + "\n"


def show_mean(row: Row) -> str:
    """`0.551±0.004`, mean and standard deviation of fresh runs; `0.551` where there is one."""
    if row.mean is None:
        return ""
    return f"{row.mean:.3f}" + (f"±{stdev(row.maps):.3f}" if len(row.maps) > 1 else "")


def trial_name(row: Row) -> str:
    """`#3`, with where it came from when it was not sampled."""
    origin = row.record.origin
    return f"#{row.record.number}" + ("" if origin == "sampled" else f" {origin}")
