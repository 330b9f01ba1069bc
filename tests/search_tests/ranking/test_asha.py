"""ASHA's rule: the decisions of Ray's scheduler, from the records alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from search.ranking.asha import cutoff, rungs, stops
from search.space.config import Asha
from search.study.record import End, TrialRecord

Make = Callable[..., Any]


@dataclass
class RayTrial:
    """All that Ray's scheduler asks of Tune's trials."""

    trial_id: int


def trial(number: int, reports: list[Any]) -> TrialRecord:
    """What the study knows of a trial with these reports."""
    return TrialRecord(number, "sampled", {}, reports={r.epoch: r for r in reports})


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "heights"),
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
    grace: int, factor: int, epochs: int, heights: list[int]
) -> None:
    assert rungs(Asha(grace_period=grace, reduction_factor=factor), epochs) == heights


def test_the_cutoff_is_the_top_quantile() -> None:
    assert cutoff([], 3) is None
    assert cutoff([0.4], 3) == 0.4
    assert cutoff([0.0, 0.1, 0.2, 0.3], 2) == pytest.approx(0.15)
    assert cutoff([0.0, 0.1, 0.2, 0.3], 4) == pytest.approx(0.225)


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
    theirs: Any = AsyncHyperBandScheduler(
        "unfreeze_epoch", "map", "max", epochs, grace, factor, stop_last_trials=False
    )
    records = {n: TrialRecord(n, "sampled", {}) for n in range(trials)}
    running = {n: 0 for n in range(trials)}
    stopped = 0
    for n in range(trials):
        theirs.on_trial_add(None, RayTrial(n))
    while running:
        # one of the first four that still run, so some are ahead of the others
        n = int(draw.choice(sorted(running)[:4]))
        report = curves[n][running[n]]
        best = max(r.map for r in curves[n][: running[n] + 1] if r.unfreeze_epoch or not running[n])
        result = {"unfreeze_epoch": report.unfreeze_epoch, "map": best}
        decision = theirs.on_trial_result(None, RayTrial(n), result)
        stop = stops(asha, epochs, records[n], report, records.values())
        last = report.unfreeze_epoch == epochs  # where both let a trial go: it ends by itself
        assert last or stop == (decision == "STOP"), (n, report.epoch)
        records[n].reports[report.epoch] = report
        running[n] += 1
        if stop or last:
            stopped += stop
            del running[n]
    assert stopped > trials // 4


def test_no_trial_stops_in_the_head_phase_or_between_rungs(make_reports: Make) -> None:
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
    record = trial(0, reports)
    assert not stops(Asha(grace_period=1), 9, record, reports[1], [record])


@pytest.mark.parametrize(("value", "stopped"), [(0.0, True), (0.3, False)])
def test_ties_stop_at_zero_and_go_on_above(make_reports: Make, value: float, stopped: bool) -> None:
    first = trial(0, make_reports([value, value]))
    second = make_reports([value, value])[1]
    assert stops(Asha(grace_period=1), 9, trial(1, []), second, [first]) is stopped


def test_the_best_epoch_so_far_counts(make_reports: Make) -> None:
    asha = Asha(grace_period=2, reduction_factor=2)
    first = trial(0, make_reports([0.1, 0.5, 0.1]))
    *before, last = make_reports([0.1, 0.6, 0.0])
    assert not stops(asha, 8, trial(1, before), last, [first])
    *before, last = make_reports([0.1, 0.4, 0.3])
    assert stops(asha, 8, trial(1, before), last, [first])


def test_epochs_of_the_head_phase_do_not_count(make_reports: Make) -> None:
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


def test_confirming_trials_are_not_compared_with(make_record: Make, make_reports: Make) -> None:
    first = make_record(0, [0.1, 0.3], end=End.FINISHED)
    again = make_record(1, [0.1, 0.9], end=End.FINISHED)
    again.confirms = 0
    report = make_reports([0.1, 0.5])[1]
    assert not stops(Asha(grace_period=1), 9, trial(2, []), report, [first, again])
    again.confirms = None
    assert stops(Asha(grace_period=1), 9, trial(2, []), report, [first, again])
