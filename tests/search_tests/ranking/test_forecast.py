"""The forecast of a search's epochs, against the rule that it simulates."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.ranking import forecast
from search.ranking.asha import cutoff, rungs
from search.ranking.forecast import (
    SIMULATED_TRIALS,
    SIMULATIONS,
    _simulate,
    confirming_epochs,
    expected_epochs,
)
from search.space.config import SearchConfig

Make = Callable[..., Any]


def test_without_asha_every_trial_runs_to_its_end(make_search: Make) -> None:
    config = make_search({"search.asha": "off", "search.trials": 7})
    assert expected_epochs(config, slots=3) == 1 + 7 * 9


@pytest.mark.parametrize("slots", [1, 3, 100])
@pytest.mark.parametrize("trials", [1, 2, 12])
def test_with_asha_trials_run_a_grace_period_at_least_and_fewer_epochs_than_all(
    make_search: Make, trials: int, slots: int
) -> None:
    config = make_search({"search.trials": trials})
    epochs = expected_epochs(config, slots)
    assert 1 + 9 + (trials - 1) * 1 <= epochs <= 1 + 9 * trials
    assert epochs == expected_epochs(config, slots)
    if trials == 12:
        assert epochs < 1 + 9 * trials


def step_by_step(config: SearchConfig, slots: int, seed: int) -> int:
    """Unfreeze epochs of the search that `_simulate` simulates, counted epoch by epoch."""
    asha, epochs, trials = config.search.asha, config.train.unfreeze.epochs, config.search.trials
    assert asha != "off"
    quality = np.random.default_rng(seed).random(trials)
    reached: dict[int, list[float]] = {height: [] for height in rungs(asha, epochs)}
    queue = list(range(trials))[::-1]
    running = [(0, 0, queue.pop()) for _ in range(min(slots, trials))]
    total = 0
    while running:
        running.sort()
        now, epoch, number = running.pop(0)
        epoch, total = epoch + 1, total + 1
        goes_on = epoch < epochs
        if epoch in reached:
            limit = cutoff(reached[epoch], asha.reduction_factor)
            goes_on = limit is None or quality[number] >= limit
            reached[epoch].append(quality[number])
        if goes_on:
            running.append((now + 1, epoch, number))
        elif queue:
            running.append((now + 1, 0, queue.pop()))
    return total


@pytest.mark.parametrize("slots", [1, 3, 100])
@pytest.mark.parametrize(
    ("grace", "factor", "epochs"), [(3, 3, 12), (1, 2, 9), (2, 4, 8), (9, 3, 9)]
)
def test_the_forecast_follows_the_rule_epoch_by_epoch(
    make_search: Make, grace: int, factor: int, epochs: int, slots: int
) -> None:
    asha = {"grace_period": grace, "reduction_factor": factor}
    config = make_search(
        {"search.asha": asha, "search.trials": 40, "train.unfreeze.epochs": epochs}
    )
    for seed in range(10):
        assert _simulate(config, slots, seed) == step_by_step(config, slots, seed)


def test_a_forecast_of_many_trials_simulates_no_more_than_one_of_some(
    make_search: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = []

    def count(config: SearchConfig, slots: int, seed: int) -> int:
        simulated.append(config.search.trials)
        return _simulate(config, slots, seed)

    monkeypatch.setattr(forecast, "_simulate", count)
    epochs_per_trial = []
    for trials in (100, 1000, 20_000):
        simulated.clear()
        epochs_per_trial.append(
            expected_epochs(make_search({"search.trials": trials}), slots=4) / trials
        )
        assert sum(simulated) == min(SIMULATIONS * trials, SIMULATED_TRIALS)
    assert epochs_per_trial[2] == pytest.approx(epochs_per_trial[1], rel=0.05)
    simulated.clear()
    expected_epochs(make_search({"search.trials": 100_000, "search.asha": "off"}), slots=4)
    assert simulated == [100_000]


def test_without_a_rung_below_the_budget_every_trial_runs_to_its_end(make_search: Make) -> None:
    config = make_search({"search.asha": {"grace_period": 9}})
    assert expected_epochs(config, slots=2) == 1 + 6 * 9


@pytest.mark.parametrize(
    ("trials", "confirm", "epochs"),
    [
        (6, "off", 0),
        (6, {"top": 2, "seeds": 3}, 3 * (1 + 3 * 9)),  # the best two, and the baseline
        (2, {"top": 2, "seeds": 3}, 3 * (1 + 2 * 9)),  # no more than there are
        (6, {"top": 1, "seeds": 1}, 1 + 2 * 9),
    ],
)
def test_each_seed_confirms_the_best_and_the_baseline(
    make_search: Make, trials: int, confirm: Any, epochs: int
) -> None:
    config = make_search({"search.trials": trials, "search.confirm": confirm, "search.asha": "off"})
    assert confirming_epochs(config) == epochs
    assert expected_epochs(config, slots=2) == 1 + trials * 9 + epochs
