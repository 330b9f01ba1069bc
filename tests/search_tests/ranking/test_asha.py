"""ASHA, pure: Ray's own decisions from the records alone, and what a search will cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from search.ranking import asha
from search.ranking.asha import (
    SIMULATED_TRIALS,
    SIMULATIONS,
    _simulate,
    confirming_epochs,
    cutoff,
    expected_epochs,
    rungs,
    stops,
)
from search.space.config import Asha, SearchConfig
from search.study.study import End, TrialRecord

Make = Callable[..., Any]


@dataclass
class RayTrial:
    """All that Ray's scheduler asks of Tune's trials."""

    trial_id: int


def trial(number: int, reports: list[Any]) -> TrialRecord:
    """What the study knows of a trial with these reports."""
    return TrialRecord(number, "sampled", {}, reports={r.epoch: r for r in reports})


# -- rungs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "found"),
    [
        (1, 3, 9, [1, 3]),
        (1, 3, 10, [1, 3, 9]),
        (3, 3, 12, [3, 9]),
        (2, 2, 16, [2, 4, 8]),
        (5, 4, 5, []),
        (4, 2, 5, [4]),
        (1, 2, 1, []),
    ],
)
def test_rungs_are_the_grace_period_times_powers_of_the_factor(
    grace: int, factor: int, epochs: int, found: list[int]
) -> None:
    assert rungs(Asha(grace_period=grace, reduction_factor=factor), epochs) == found


def test_the_cutoff_is_the_top_quantile() -> None:
    assert cutoff([], 3) is None
    assert cutoff([0.4], 3) == 0.4
    assert cutoff([0.0, 0.1, 0.2, 0.3], 2) == pytest.approx(0.15)
    assert cutoff([0.0, 0.1, 0.2, 0.3], 4) == pytest.approx(0.225)


# -- decisions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grace", "factor", "epochs"), [(1, 3, 9), (2, 2, 12), (3, 3, 14), (1, 4, 6)]
)
@pytest.mark.parametrize("seed", range(5))
def test_decisions_are_rays_own_on_random_curves(
    make_reports: Make, grace: int, factor: int, epochs: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    trials = 20
    curves = {
        n: make_reports([float(v) for v in draw.random(1 + epochs) + 0.01]) for n in range(trials)
    }
    asha = Asha(grace_period=grace, reduction_factor=factor)
    theirs = AsyncHyperBandScheduler(
        "unfreeze_epoch", "map", "max", epochs, grace, factor, stop_last_trials=False
    )
    records = {n: TrialRecord(n, "sampled", {}) for n in range(trials)}
    running = {n: 0 for n in range(trials)}
    stopped = 0
    for n in range(trials):
        theirs.on_trial_add(None, RayTrial(n))
    while running:
        # some four trials are ahead of the others, in any order
        n = int(draw.choice(sorted(running)[:4]))
        report = curves[n][running[n]]
        best = max(r.map for r in curves[n][: running[n] + 1] if r.unfreeze_epoch or not running[n])
        result = {"unfreeze_epoch": report.unfreeze_epoch, "map": best}
        wanted = theirs.on_trial_result(None, RayTrial(n), result)
        found = stops(asha, epochs, records[n], report, records.values())
        last = report.unfreeze_epoch == epochs  # where both let a trial go: it ends by itself
        assert last or found == (wanted == "STOP"), (n, report.epoch)
        records[n].reports[report.epoch] = report
        running[n] += 1
        if found or last:
            stopped += found
            del running[n]
    assert stopped > trials // 4


def test_nobody_stops_in_the_head_phase_or_between_rungs(make_reports: Make) -> None:
    asha = Asha(grace_period=2, reduction_factor=2)
    best = trial(0, make_reports([0.9] * 10, head=2))
    judged = [
        report.unfreeze_epoch
        for report in make_reports([0.1] * 10, head=2)
        if stops(asha, 8, trial(1, []), report, [best])
    ]
    assert judged == [2, 4]


def test_the_first_at_a_rung_goes_on_however_weak(make_reports: Make) -> None:
    report = make_reports([0.0, 0.0])[1]
    assert not stops(Asha(grace_period=1), 9, trial(0, []), report, [])
    behind = trial(1, make_reports([0.9]))
    assert not stops(Asha(grace_period=1), 9, trial(0, []), report, [behind])


def test_a_trial_is_not_compared_with_itself(make_reports: Make) -> None:
    reports = make_reports([0.1, 0.2])
    own = trial(0, reports)
    assert not stops(Asha(grace_period=1), 9, own, reports[1], [own])


@pytest.mark.parametrize(("value", "stopped"), [(0.0, True), (0.3, False)])
def test_ties_stop_at_zero_and_go_on_above(make_reports: Make, value: float, stopped: bool) -> None:
    first = trial(0, make_reports([value, value]))
    second = make_reports([value, value])[1]
    assert stops(Asha(grace_period=1), 9, trial(1, []), second, [first]) is stopped


def test_what_counts_is_the_best_so_far(make_reports: Make) -> None:
    asha = Asha(grace_period=2, reduction_factor=2)
    first = trial(0, make_reports([0.1, 0.5, 0.1]))
    *before, last = make_reports([0.1, 0.6, 0.0])
    assert not stops(asha, 8, trial(1, before), last, [first])
    *before, last = make_reports([0.1, 0.4, 0.3])
    assert stops(asha, 8, trial(1, before), last, [first])


def test_the_head_phase_counts_for_nobody(make_reports: Make) -> None:
    asha = Asha(grace_period=2, reduction_factor=2)
    first = trial(0, make_reports([0.6, 0.2, 0.3]))
    *before, last = make_reports([0.6, 0.1, 0.4])
    assert not stops(asha, 8, trial(1, before), last, [first])
    *before, last = make_reports([0.6, 0.1, 0.2])
    assert stops(asha, 8, trial(1, before), last, [first])


def test_ended_trials_of_every_kind_stay_at_their_rungs(
    make_record: Make, make_reports: Make
) -> None:
    weak = make_reports([0.1, 0.1])[1]
    for end in (None, *End):
        record = make_record(0, [0.5, 0.5], end=end)
        assert stops(Asha(grace_period=1), 9, trial(1, []), weak, [record])


def test_runs_that_confirm_are_no_yardstick(make_record: Make, make_reports: Make) -> None:
    first = make_record(0, [0.1, 0.3], end=End.FINISHED)
    again = make_record(1, [0.1, 0.9], end=End.FINISHED)
    again.confirms = 0
    report = make_reports([0.1, 0.5])[1]
    assert not stops(Asha(grace_period=1), 9, trial(2, []), report, [first, again])
    again.confirms = None
    assert stops(Asha(grace_period=1), 9, trial(2, []), report, [first, again])


# -- what it will cost ----------------------------------------------------------------------------


def test_without_asha_every_trial_runs_to_its_end(make_search: Make) -> None:
    config = make_search({"search.asha": "off", "search.trials": 7})
    assert expected_epochs(config, slots=3) == 1 + 7 * 9


@pytest.mark.parametrize("slots", [1, 3, 100])
@pytest.mark.parametrize("trials", [1, 2, 12])
def test_asha_costs_at_least_a_grace_period_a_trial_and_less_than_all(
    make_search: Make, trials: int, slots: int
) -> None:
    config = make_search({"search.trials": trials})
    found = expected_epochs(config, slots)
    assert 1 + 9 + (trials - 1) * 1 <= found <= 1 + 9 * trials
    assert found == expected_epochs(config, slots)
    if trials == 12:
        assert found < 1 + 9 * trials


def step_by_step(config: SearchConfig, slots: int, seed: int) -> int:
    """Unfreeze epochs of the same search as one is simulated for the forecast, epoch by epoch."""
    asha, epochs, trials = config.search.asha, config.train.unfreeze.epochs, config.search.trials
    quality = np.random.default_rng(seed).random(trials)
    reached: dict[int, list[float]] = {height: [] for height in rungs(asha, epochs)}
    waiting = list(range(trials))[::-1]
    running = [(0, 0, waiting.pop()) for _ in range(min(slots, trials))]
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
        elif waiting:
            running.append((now + 1, 0, waiting.pop()))
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


def test_a_forecast_of_many_trials_takes_no_longer_than_one_of_some(
    make_search: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = []

    def count(config: SearchConfig, slots: int, seed: int) -> int:
        simulated.append(config.search.trials)
        return _simulate(config, slots, seed)

    monkeypatch.setattr(asha, "_simulate", count)
    shares = []
    for trials in (100, 1000, 20_000):
        simulated.clear()
        shares.append(expected_epochs(make_search({"search.trials": trials}), slots=4) / trials)
        assert sum(simulated) == min(SIMULATIONS * trials, SIMULATED_TRIALS)
    assert shares[2] == pytest.approx(shares[1], rel=0.05)
    simulated.clear()
    expected_epochs(make_search({"search.trials": 100_000, "search.asha": "off"}), slots=4)
    assert simulated == [100_000]


def test_a_single_rung_less_budget_costs_everything(make_search: Make) -> None:
    config = make_search({"search.asha": {"grace_period": 9}})
    assert expected_epochs(config, slots=2) == 1 + 6 * 9


@pytest.mark.parametrize(
    ("trials", "confirm", "epochs"),
    [
        (6, "off", 0),
        (6, {"top": 2, "seeds": 3}, 3 * (1 + 3 * 9)),  # the best two, and the one as written
        (2, {"top": 2, "seeds": 3}, 3 * (1 + 2 * 9)),  # no more than there are
        (6, {"top": 1, "seeds": 1}, 1 + 2 * 9),
    ],
)
def test_each_seed_confirms_the_best_and_the_one_as_written(
    make_search: Make, trials: int, confirm: Any, epochs: int
) -> None:
    config = make_search({"search.trials": trials, "search.confirm": confirm, "search.asha": "off"})
    assert confirming_epochs(config) == epochs
    assert expected_epochs(config, slots=2) == 1 + trials * 9 + epochs
