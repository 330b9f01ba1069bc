"""ASHA's rule and what it will cost: pure functions of reports."""

from bisect import insort
from collections.abc import Iterable
from heapq import heappop, heappush

import numpy as np

from trainer.epoch_report import EpochReport

from ..space.config import Asha, SearchConfig
from ..study.study import TrialRecord

SIMULATIONS, SIMULATED_TRIALS = 200, 100_000
"""Searches that are simulated for a forecast, at most, and about how many trials they may have in
all, but one search at least."""


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
    the head phase is trained once. Large searches are simulated less often: theirs vary little.
    """
    simulations = max(1, min(SIMULATIONS, SIMULATED_TRIALS // config.search.trials))
    counts = [_simulate(config, slots, seed) for seed in range(simulations)]
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
    quality: list[float] = np.random.default_rng(seed).random(trials).tolist()
    heights = [*rungs(asha, epochs), epochs]
    reached: list[list[float]] = [[] for _ in heights]  # in order
    at_once = min(slots, trials)
    # by time in epochs, unfreeze epoch and number: who comes to which of the heights next
    running = [(heights[0], heights[0], trial, 0) for trial in range(at_once)]
    waiting = iter(range(at_once, trials))
    total = 0
    while running:
        now, epoch, trial, rung = heappop(running)
        if epoch < epochs and _goes_on(quality[trial], reached[rung], asha.reduction_factor):
            step = heights[rung + 1] - epoch
            heappush(running, (now + step, epoch + step, trial, rung + 1))
            continue
        total += epoch
        if (trial := next(waiting, -1)) >= 0:
            heappush(running, (now + heights[0], heights[0], trial, 0))
    return total


def _goes_on(value: float, reached: list[float], reduction_factor: int) -> bool:
    """Whether `cutoff` lets a value pass; puts it among those reached, which are in order."""
    place = (1 - 1 / reduction_factor) * (len(reached) - 1)
    below, above = int(place), min(int(place) + 1, len(reached) - 1)
    limit = reached[below] + (reached[above] - reached[below]) * (place - below) if reached else 0.0
    insort(reached, value)
    return value >= limit
