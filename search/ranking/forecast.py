"""How many epochs a search will train, by simulation."""

from bisect import insort
from heapq import heappop, heappush

import numpy as np

from ..space.config import SearchConfig
from .asha import rungs

SIMULATIONS = 200
"""Searches that are simulated for a forecast, at most."""
SIMULATED_TRIALS = 100_000
"""Trials that all simulated searches together have, at most; one search is always simulated."""


def expected_epochs(config: SearchConfig, slots: int) -> int:
    """About how many epochs a search trains: the mean of simulated searches.

    In a simulation the quality of a trial is random and does not change, `slots` trials run at the
    same time, and the head phase is trained once. The confirming trials are added. A large search
    is simulated less often, because its total varies little.
    """
    simulations = max(1, min(SIMULATIONS, SIMULATED_TRIALS // config.search.trials))
    counts = [_simulate(config, slots, seed) for seed in range(simulations)]
    return config.train.head.epochs + round(sum(counts) / len(counts)) + confirming_epochs(config)


def confirming_epochs(config: SearchConfig) -> int:
    """Epochs that the confirming trials train, at most.

    The most are trained when the baseline is not among the best. Each seed has a head phase.
    """
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
    reached: list[list[float]] = [[] for _ in heights]  # sorted
    at_once = min(slots, trials)
    # a heap of (time in epochs, unfreeze epoch, trial, index of the height it reaches then)
    running = [(heights[0], heights[0], trial, 0) for trial in range(at_once)]
    queue = iter(range(at_once, trials))
    total = 0
    while running:
        now, epoch, trial, rung = heappop(running)
        if epoch < epochs and _goes_on(quality[trial], reached[rung], asha.reduction_factor):
            step = heights[rung + 1] - epoch
            heappush(running, (now + step, epoch + step, trial, rung + 1))
            continue
        total += epoch
        if (trial := next(queue, -1)) >= 0:
            heappush(running, (now + heights[0], heights[0], trial, 0))
    return total


def _goes_on(value: float, reached: list[float], reduction_factor: int) -> bool:
    """Whether `asha.cutoff` lets a value pass; the value joins the sorted list `reached`."""
    place = (1 - 1 / reduction_factor) * (len(reached) - 1)
    below, above = int(place), min(int(place) + 1, len(reached) - 1)
    limit = reached[below] + (reached[above] - reached[below]) * (place - below) if reached else 0.0
    insort(reached, value)
    return value >= limit
