"""ASHA's rule and what it will cost: pure functions of reports."""

from collections.abc import Iterable

import numpy as np

from trainer.reports import EpochReport

from .config import Asha, SearchConfig
from .study import TrialRecord

SIMULATIONS = 200


def rungs(asha: Asha, epochs: int) -> list[int]:
    """Unfreeze epochs at which trials are compared: grace period times powers of the factor."""
    found = []
    rung = asha.grace_period
    while rung < epochs:
        found.append(rung)
        rung *= asha.reduction_factor
    return found


def cutoff(values: Iterable[float], reduction_factor: int) -> float | None:
    """The value that a trial must reach at a rung where these were reached before.

    The top 1/reduction_factor quantile, as in Ray's AsyncHyperBandScheduler; None at an empty rung.
    """
    recorded = list(values)
    if not recorded:
        return None
    return float(np.percentile(recorded, (1 - 1 / reduction_factor) * 100))


def stops(
    asha: Asha,
    epochs: int,
    trial: TrialRecord,
    report: EpochReport,
    records: Iterable[TrialRecord],
) -> bool:
    """Whether ASHA stops a trial at this report, not yet recorded, given all that is.

    A trial that has found nothing stops at a rung that others have reached, for with Ray's strict
    comparison zeros keep each other alive.
    """
    if report.unfreeze_epoch not in rungs(asha, epochs):
        return False
    others = [
        value
        for record in records
        if record.number != trial.number
        and record.confirms is None  # not judged, and no yardstick
        and (value := record.best_until(report.unfreeze_epoch)) is not None
    ]
    limit = cutoff(others, asha.reduction_factor)
    if limit is None:
        return False
    own = trial.best_with(report)
    return own < limit or own <= 0


def expected_epochs(config: SearchConfig, slots: int) -> int:
    """About how many epochs a search trains: the mean of simulated ones, and the confirming ones.

    In the simulation the trials' ranks are random and stay as they are, `slots` run at once, and
    the head phase is trained once.
    """
    counts = [_simulate(config, slots, seed) for seed in range(SIMULATIONS)]
    return config.train.head.epochs + round(sum(counts) / len(counts)) + confirming_epochs(config)


def confirming_epochs(config: SearchConfig) -> int:
    """Epochs that the confirming trials train at most, the configuration as written being none of
    the best: each seed has its own head phase."""
    confirm = config.search.confirm
    if confirm == "off":
        return 0
    trials = min(confirm.top + 1, config.search.trials)
    return confirm.seeds * (config.train.head.epochs + trials * config.train.unfreeze.epochs)


def _simulate(config: SearchConfig, slots: int, seed: int) -> int:
    """Unfreeze epochs that one simulated search trains."""
    asha, epochs, trials = config.search.asha, config.train.unfreeze.epochs, config.search.trials
    if asha == "off":
        return epochs * trials
    quality = np.random.default_rng(seed).random(trials)
    heights = rungs(asha, epochs)
    reached: dict[int, list[float]] = {height: [] for height in heights}
    waiting = list(range(trials - 1, -1, -1))
    running = [(0, 0, waiting.pop()) for _ in range(min(slots, trials))]
    total = 0
    while running:
        running.sort()  # by time, counted in epochs
        now, epoch, trial = running.pop(0)
        epoch, total = epoch + 1, total + 1
        goes_on = epoch < epochs
        if epoch in reached:
            limit = cutoff(reached[epoch], asha.reduction_factor)
            goes_on = limit is None or quality[trial] >= limit
            reached[epoch].append(quality[trial])
        if goes_on:
            running.append((now + 1, epoch, trial))
        elif waiting:
            running.append((now + 1, 0, waiting.pop()))
    return total
