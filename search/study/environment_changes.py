"""Changes of the environment of a trial: it may continue with other code or on other hardware."""

from itertools import pairwise

from trainer.epoch_report import EpochReport

from .record import TrialRecord


def describe_changes(record: TrialRecord) -> list[str]:
    """A line for each epoch from which on a trial ran in another environment."""
    reports = [record.reports[epoch] for epoch in sorted(record.reports)]
    return [line for before, after in pairwise(reports) if (line := describe_change(before, after))]


def describe_change(before: EpochReport | None, after: EpochReport) -> str:
    """How the environment changed between two epochs; empty if it did not.

    An example: `from epoch 5 on with torch 2.15.0 (2.14.1 before)`.

    Args:
        before: Report of the epoch before; None if there is none.
        after: Report of the epoch.
    """
    if before is None or before.environment == after.environment:
        return ""
    if not before.environment or not after.environment:  # early versions did not record it
        return f"from epoch {after.epoch} with another version of Unfreeze"
    changed = [
        f"{name} {value} (was {before.environment.get(name, 'unknown')})"
        for name, value in after.environment.items()
        if before.environment.get(name) != value
    ]
    return f"from epoch {after.epoch} with {', '.join(changed)}"
