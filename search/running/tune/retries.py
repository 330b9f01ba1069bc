"""How often a trial starts again after its worker was lost."""

from collections import Counter

from ray import tune

MAX_RETRIES = 3
"""Times that a trial starts again from its last checkpoint after its worker died, and times that
its node may be lost without a new epoch in between."""


def no_retries_by_tune() -> tune.FailureConfig:
    """Tune never retries: the searcher hands a lost trial out again.

    Tune counts the death of a reused worker twice.
    """
    return tune.FailureConfig(max_failures=0)


class Retries:
    """Counts the lost workers of each trial."""

    def __init__(self) -> None:
        self._deaths: Counter[int] = Counter()
        """Dead workers, by trial number."""
        self._node_losses: Counter[tuple[int, int]] = Counter()
        """Lost nodes, by trial number and the epochs that the trial had."""

    def after_node_loss(self, number: int, epochs: int) -> str:
        """Count a lost node; returns the reason to give the trial up, or an empty string."""
        self._node_losses[number, epochs] += 1
        if self._node_losses[number, epochs] > MAX_RETRIES:
            return "its nodes were lost again and again"
        return ""

    def after_death(self, number: int) -> str:
        """Count a dead worker; returns the reason to give the trial up, or an empty string."""
        self._deaths[number] += 1
        return "its workers died again and again" if self._deaths[number] > MAX_RETRIES else ""

    def deaths(self, number: int) -> int:
        """How many workers of this trial died."""
        return self._deaths[number]
