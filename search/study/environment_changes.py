"""Where a trial ran: one that was continued may have done so with other code, or elsewhere."""

from itertools import pairwise

from trainer.epoch_report import EpochReport

from .study import TrialRecord


def stretches(record: TrialRecord) -> list[str]:
    """A line for each time that a trial went on in another environment than before."""
    reports = [record.reports[epoch] for epoch in sorted(record.reports)]
    return [line for before, after in pairwise(reports) if (line := difference(before, after))]


def difference(before: EpochReport | None, after: EpochReport) -> str:
    """`from epoch 5 on with torch 2.15.0 (2.14.1 before)`; empty where the environment is that of
    the epoch before."""
    if before is None or before.environment == after.environment:
        return ""
    if not before.environment or not after.environment:  # of a version that said nothing of it
        return f"from epoch {after.epoch} on with another version of Unfreeze"
    changed = [
        f"{name} {value} ({before.environment.get(name, 'unknown')} before)"
        for name, value in after.environment.items()
        if before.environment.get(name) != value
    ]
    return f"from epoch {after.epoch} on with {', '.join(changed)}"
