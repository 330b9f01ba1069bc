"""ASHA's rule: at which epochs trials are compared, and which of them stop there.

Every function here is a pure function of the reports.
"""

from collections.abc import Iterable

import numpy as np

from trainer.epoch_report import EpochReport

from ..space.config import Asha
from ..study.record import TrialRecord


def rungs(asha: Asha, epochs: int) -> list[int]:
    """Unfreeze epochs at which trials are compared: grace period times powers of the factor."""
    heights = []
    rung = asha.grace_period
    while rung < epochs:
        heights.append(rung)
        rung *= asha.reduction_factor
    return heights


def cutoff(values: Iterable[float], reduction_factor: int) -> float | None:
    """The value that a trial must reach at a rung, given the values that others reached there.

    It is the top 1/reduction_factor quantile, as in Ray's AsyncHyperBandScheduler. None means that
    no trial has reached the rung.
    """
    reached = list(values)
    if not reached:
        return None
    return float(np.percentile(reached, (1 - 1 / reduction_factor) * 100))


def stops(
    asha: Asha,
    epochs: int,
    trial: TrialRecord,
    report: EpochReport,
    records: Iterable[TrialRecord],
) -> bool:
    """Whether ASHA stops a trial at this report.

    A trial whose AP is still 0 stops at a rung that others have reached. Ray compares strictly, so
    there trials with an AP of 0 would keep each other alive.

    Args:
        asha: The grace period and the reduction factor.
        epochs: Unfreeze epochs of a trial that is not stopped.
        trial: The trial, without this report.
        report: Its new report.
        records: All trials of the search. Confirming trials are left out.
    """
    if report.unfreeze_epoch not in rungs(asha, epochs):
        return False
    others = [
        value
        for record in records
        if record.number != trial.number
        and record.confirms is None
        and (value := record.best_until(report.unfreeze_epoch)) is not None
    ]
    limit = cutoff(others, asha.reduction_factor)
    if limit is None:
        return False
    best = trial.best_with(report)
    return best < limit or best <= 0
