"""The record of one trial: its parameters, its reports and its end.

Workers import this file. It does not import Optuna.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from trainer.epoch_report import EpochReport, read_report

from ..space.space import Values


class End(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"
    PRUNED = "pruned"
    """Stopped by ASHA."""
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    ERROR = "error"
    LOST = "lost"
    """Its workers died too often."""


@dataclass
class TrialRecord:
    """What the study knows of one trial."""

    number: int
    """Optuna's number of the trial: its only identity."""
    origin: str
    """`as written`, `all unfrozen`, `first`, `sampled` or `confirms #N`."""
    parameters: Values
    """By Optuna's parameter names."""
    started: float | None = None
    """When its first worker got it, seconds since 1970; None before that."""
    ended: float | None = None
    """When it ended, seconds since 1970."""
    reports: dict[int, EpochReport] = field(default_factory=dict)
    """By epoch."""
    times: dict[int, float] = field(default_factory=dict)
    """When each report came, by epoch, seconds since 1970."""
    end: End | None = None
    """None while it runs or waits for a worker."""
    text: str = ""
    """What went wrong."""
    running: bool = False
    """Whether a worker of this driver has it."""
    stopped_at: int | None = None
    """Unfreeze epoch of the rung at which ASHA stopped it."""
    confirms: int | None = None
    """Number of the trial whose configuration it trains again."""
    seed: int | None = None
    """Its seed if it confirms another trial; else the seed is the configuration's."""

    @property
    def last(self) -> EpochReport | None:
        """The report of the last epoch."""
        return self.reports[max(self.reports)] if self.reports else None

    @property
    def best(self) -> EpochReport | None:
        """The report with the best AP, the first of equal ones; `best.pt` is of this epoch."""
        return max(list(self.reports.values()), key=lambda r: (r.map, -r.epoch), default=None)

    @property
    def unfreeze_epoch(self) -> int:
        """How many unfreeze epochs it has trained."""
        return self.last.unfreeze_epoch if self.last else 0

    def best_until(self, unfreeze_epoch: int) -> float | None:
        """Best AP of the unfreeze epochs up to this one; None if it has not trained so many.

        Epochs of the head phase do not count: the head phase is the same for all trials.
        """
        if self.unfreeze_epoch < unfreeze_epoch:
            return None
        return max(r.map for r in self.reports.values() if 1 <= r.unfreeze_epoch <= unfreeze_epoch)

    def best_with(self, report: EpochReport) -> float:
        """Best AP of the unfreeze epochs, `report` included, which is not recorded yet."""
        so_far = self.best_until(self.unfreeze_epoch) if self.unfreeze_epoch else None
        return max(report.map, so_far or 0.0)


def to_json(report: EpochReport) -> str:
    """A report as text, for its way from a worker to the driver."""
    return json.dumps(asdict(report))


def from_json(text: str) -> EpochReport:
    """The report that `to_json` wrote."""
    return read_report(json.loads(text))
