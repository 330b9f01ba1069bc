"""Trials in order of their results, the best first."""

from collections.abc import Iterable

from ..space.config import SearchConfig
from ..study.record import End, TrialRecord
from .asha import rungs

CAN_WIN = {End.FINISHED, End.PRUNED, None}
"""Ends of trials whose checkpoint may win. None is a trial that runs or was interrupted."""


def sort_trials(config: SearchConfig, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials by the highest rung that they reached, then by best AP; those that failed come last.

    The rung counts first, so a trial that ASHA stopped is not compared with one that trained on.
    """

    def key(record: TrialRecord) -> tuple[bool, int, float, int]:
        can_win = record.end in CAN_WIN and record.best is not None
        return can_win, highest_rung(config, record), best_map(record), -record.number

    return sorted(records, key=key, reverse=True)


def highest_rung(config: SearchConfig, record: TrialRecord) -> int:
    """Unfreeze epochs of the highest rung that a trial reached; 0 below the first, or without."""
    asha = config.search.asha
    heights = [] if asha == "off" else rungs(asha, config.train.unfreeze.epochs)
    return max([height for height in heights if height <= record.unfreeze_epoch], default=0)


def best_map(record: TrialRecord) -> float:
    """Val AP of a trial's best epoch, of the head phase or after it; -1 without a report.

    `best.pt` holds this epoch, so it is what an export of the trial has.
    """
    return record.best.map if record.best else -1.0
