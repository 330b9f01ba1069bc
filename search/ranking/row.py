"""One trial of the ranked table, and which checkpoint its configuration exports."""

from dataclasses import dataclass
from statistics import mean
from typing import Any

from ..space.space import Values
from ..study.record import TrialRecord
from .trial_order import best_map


@dataclass(frozen=True)
class Row:
    """One trial in the table."""

    rank: int
    """Of the configuration, from 1. Its confirming runs have the same rank."""
    record: TrialRecord
    values: Values
    """By dotted field."""
    rung: int
    """Unfreeze epochs of the highest rung reached."""
    fresh: tuple[TrialRecord, ...] = ()
    """The finished runs that confirm the configuration; empty until all of them have ended.

    The trial that the configuration was chosen by is not one of them: it was partly lucky.
    """

    @property
    def maps(self) -> list[float]:
        """Val AP of each fresh run at its best epoch, which may be of the head phase."""
        return [best_map(run) for run in self.fresh]

    @property
    def mean(self) -> float | None:
        """Mean val AP of the fresh runs, None without any."""
        return mean(self.maps) if self.fresh else None

    @property
    def by_map(self) -> list[TrialRecord]:
        """All runs of the configuration, the best first."""
        return sorted((self.record, *self.fresh), key=best_map, reverse=True)

    @property
    def best_run(self) -> TrialRecord:
        """The run whose checkpoint is the configuration's best."""
        return self.by_map[0]

    @property
    def state(self) -> str:
        """How the trial ended, `interrupted` while it has no end."""
        return self.record.end.value if self.record.end else "interrupted"

    @property
    def map(self) -> float | None:
        """Val AP of the trial's best epoch."""
        return self.record.best.map if self.record.best else None

    @property
    def score(self) -> float | None:
        """The configuration's val AP: the mean of its fresh runs, without these the trial's."""
        return self.map if self.mean is None else self.mean


def state_in(search: str, row: Row) -> str:
    """A trial's state in a search of this state.

    A trial without an end is `under way` while the search runs, `interrupted` after that, and has
    `no epoch yet` before its first report.
    """
    if row.record.end is None and not row.record.reports:
        return "no epoch yet"
    return "under way" if search == "running" and row.record.end is None else row.state


def checkpoint_of(row: Row) -> dict[str, int]:
    """Trial and epoch of the checkpoint that a configuration exports."""
    run = row.best_run
    return {"trial": run.number, "epoch": run.best.epoch if run.best else 0}


def metrics_belong_to(metrics: dict[str, Any], row: Row) -> bool:
    """Whether figures were measured from this configuration's export.

    `for` names the checkpoint that was wanted. `of` names the one that was exported, which is
    another where the wanted one was deleted. Earlier versions wrote `of` alone.
    """
    return bool(metrics) and metrics.get("for", metrics.get("of")) == checkpoint_of(row)
