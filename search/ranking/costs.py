"""What a search cost, and what it saved, computed from the study."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from trainer.epoch_report import EpochReport

from ..space.config import SearchConfig
from ..study.allocation import allocated_seconds
from ..study.record import End, TrialRecord
from ..study.study import Study


@dataclass(frozen=True)
class Costs:
    """What a search ran, and what it did not have to run."""

    trials: int
    epochs_run: int
    """Epochs trained."""
    epochs_forked: int
    """Epochs taken over from an equal phase."""
    epochs_not_run: int
    """Epochs that trials did not train because ASHA stopped them."""
    images_from_cache: int
    """Pictures whose frozen stages were read from files instead of run."""
    seconds: float
    """Of training and evaluation, summed over trials."""
    seconds_without_savings: float
    """Seconds without forks, stops and cached features, at each trial's measured speed.

    Cached features count only at depths where their speedup was measured.
    """
    counts_cached_features: bool
    """Whether `seconds_without_savings` counts cached features."""
    cpu_hours: float
    """Cores that trials were given, times hours; forked epochs cost none."""
    gpu_hours: float
    """GPUs that trials were given, times hours; forked epochs cost none."""


def costs(config: SearchConfig, study: Study) -> Costs:
    """What a search has cost so far."""
    records = list(study.records.values())
    reports = [report for record in records for report in list(record.reports.values())]
    trained = [
        (record.times[epoch], report.seconds)
        for record in records
        for epoch, report in list(record.reports.items())
        if not report.forked
    ]
    cpus, gpus = allocated_seconds(study, trained)
    budget = config.train.unfreeze.epochs
    speedups = study.cache_speedups
    return Costs(
        trials=len(records),
        epochs_run=sum(not report.forked for report in reports),
        epochs_forked=sum(report.forked for report in reports),
        epochs_not_run=sum(
            budget - record.unfreeze_epoch for record in records if record.end is End.PRUNED
        ),
        images_from_cache=sum(report.images_from_cache for report in reports if not report.forked),
        seconds=sum(seconds for _, seconds in trained),
        seconds_without_savings=sum(_uncached_seconds(report, speedups) for report in reports)
        + sum(_stopped_seconds(record, budget, speedups) for record in records),
        counts_cached_features=any(
            _uncached_seconds(report, speedups) > report.seconds for report in reports
        ),
        cpu_hours=cpus / 3600,
        gpu_hours=gpus / 3600,
    )


def _uncached_seconds(report: EpochReport, speedups: Sequence[float]) -> float:
    """Seconds that an epoch would have taken without cached features.

    `speedups` are those measured, by depth.
    """
    is_known = report.images_from_cache and report.depth < len(speedups)
    return report.seconds * (speedups[report.depth] if is_known else 1.0)


def _stopped_seconds(record: TrialRecord, epochs: int, speedups: Sequence[float]) -> float:
    """Seconds that the remaining unfreeze epochs of a stopped trial would have taken."""
    if record.end is not End.PRUNED:
        return 0.0
    seconds = [_uncached_seconds(r, speedups) for r in record.reports.values() if r.unfreeze_epoch]
    return (epochs - record.unfreeze_epoch) * mean(seconds) if seconds else 0.0
