"""What a search cost, and what it saved: read off the study."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from trainer.epoch_report import EpochReport

from ..space.config import SearchConfig
from ..study.allocation import held
from ..study.study import End, Study, TrialRecord


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
    read: int
    """Pictures whose frozen stages were read from files instead of run."""
    seconds: float
    """Of training and evaluation, added up over trials."""
    whole: float
    """Seconds had nothing been taken over, nothing been stopped, and no outputs been kept where
    their gain was measured; at each trial's own pace."""
    counts_kept: bool
    """Whether `whole` counts kept outputs."""
    cpu_hours: float
    """Of the cores that trials held; None of what forks took over."""
    gpu_hours: float


def costs(config: SearchConfig, study: Study) -> Costs:
    """What the search cost."""
    records = list(study.records.values())
    reports = [report for record in records for report in list(record.reports.values())]
    trained = [
        (record.times[epoch], report.seconds)
        for record in records
        for epoch, report in list(record.reports.items())
        if not report.forked
    ]
    cpus, gpus = held(study, trained)
    whole = config.train.unfreeze.epochs
    gains = study.get("gains", ())
    return Costs(
        trials=len(records),
        run=sum(not report.forked for report in reports),
        forked=sum(report.forked for report in reports),
        stopped=sum(
            whole - record.unfreeze_epoch for record in records if record.end is End.PRUNED
        ),
        read=sum(report.read for report in reports if not report.forked),
        seconds=sum(seconds for _, seconds in trained),
        whole=sum(_without(report, gains) for report in reports)
        + sum(_unrun(record, whole, gains) for record in records),
        counts_kept=any(_without(report, gains) > report.seconds for report in reports),
        cpu_hours=cpus / 3600,
        gpu_hours=gpus / 3600,
    )


def saved(spent: Costs) -> str:
    """`training took 3 min of trials' time; without forks and stops about 6 min`; empty where there
    was none of it."""
    if spent.whole <= spent.seconds:
        return ""
    what = "forks, stops and kept outputs" if spent.counts_kept else "forks and stops"
    return (
        f"training took {duration(spent.seconds)} of trials' time; without {what} about "
        f"{duration(spent.whole)}"
    )


def _without(report: EpochReport, gains: Sequence[float]) -> float:
    """Seconds that an epoch would have taken without kept outputs."""
    is_known = report.read and report.depth < len(gains)
    return report.seconds * (gains[report.depth] if is_known else 1.0)


def _unrun(record: TrialRecord, epochs: int, gains: Sequence[float]) -> float:
    """Seconds that the rest of a stopped trial's unfreeze epochs would have taken."""
    if record.end is not End.PRUNED:
        return 0.0
    own = [_without(r, gains) for r in record.reports.values() if r.unfreeze_epoch]
    return (epochs - record.unfreeze_epoch) * mean(own) if own else 0.0


def duration(seconds: float) -> str:
    """`40 s`, `14 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
