"""Confirming: which configurations run again, and what their mean decides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.exports.trial_config import config_of
from search.ranking.asha import stops
from search.ranking.confirm import enqueue, is_complete, missing_runs
from search.ranking.gain_sentence import describe_gain
from search.ranking.ranking import rank, winner
from search.reporting.formatting import show_mean
from search.space.config import Asha, Confirm
from search.space.space import read_space
from search.study.record import End, TrialRecord
from search.study.search_state import SearchState
from search.study.storage import open_study
from search.study.study import Study

Make = Callable[..., Any]
LR = "train.unfreeze.lr"
SPACE = {LR: {"log": [1e-4, 1e-2]}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return open_study(tmp_path, "tiny", trials=3)


@pytest.fixture
def config(make_search: Make) -> Any:
    confirm = {"top": 2, "seeds": 2}
    return make_search({"space": SPACE, "search.trials": 3, "search.confirm": confirm})


def run_queued(study: Study, config: Any, reports: Make, maps: list[float]) -> None:
    """Run the queued trials to these APs, in order; one below 0.2 is stopped by ASHA."""
    for value in maps:
        number, _ = study.ask(read_space(config.space), config)
        length = 10 if value >= 0.2 else 2
        for report in reports([value / 2] * (length - 1) + [value]):
            study.record(number, report)
        study.end(number, End.FINISHED if length == 10 else End.PRUNED)


def test_the_best_that_finished_run_again_with_each_seed(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4, 3e-4):
        study.enqueue({LR: lr}, "first")
    run_queued(study, config, make_reports, [0.3, 0.1, 0.4])
    assert missing_runs(config, study) == [(2, 1), (0, 1), (2, 2), (0, 2)]
    assert not is_complete(config, study)
    lines: list[str] = []
    assert enqueue(config, study, lines.append) and not enqueue(config, study, lines.append)
    assert lines == ["run again with other seeds, to be confirmed: #2, #0"]
    runs = [r for r in study.records.values() if r.confirms is not None]
    assert [(r.confirms, r.seed, r.parameters[LR]) for r in runs] == [
        (2, 1, 3e-4),
        (0, 1, 1e-4),
        (2, 2, 3e-4),
        (0, 2, 1e-4),
    ]
    _, handed = study.ask(read_space(config.space), config)
    assert (handed.train.seed, handed.train.unfreeze.lr) == (1, 3e-4)
    again = open_study(config.folder.parent.parent, "tiny")
    assert [(r.confirms, r.seed) for r in again.records.values()][3:] == [
        (2, 1),
        (0, 1),
        (2, 2),
        (0, 2),
    ]


def test_the_best_mean_wins_and_its_best_run_is_exported(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4, 3e-4):
        study.enqueue({LR: lr}, "first")
    run_queued(study, config, make_reports, [0.3, 0.1, 0.4])
    enqueue(config, study)
    run_queued(study, config, make_reports, [0.22, 0.36, 0.22, 0.32])
    assert is_complete(config, study)
    rows = rank(config, study.records.values())
    assert [(row.rank, row.record.number) for row in rows] == [
        (1, 0),
        (1, 4),
        (1, 6),
        (2, 2),
        (2, 3),
        (2, 5),
        (3, 1),
    ]
    best = winner(rows)
    assert best is not None and best.record.number == 0
    assert show_mean(best) == "0.340±0.028"  # of the fresh runs
    assert best.score == pytest.approx(0.34) and best.map == 0.3
    assert rows[-1].score == 0.1  # which ran once
    assert best.best_run.number == 4
    assert config_of(config, best.best_run, "fp32").train.seed == 1


def test_a_better_trial_that_is_not_confirmed_yet_wins(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4):
        study.enqueue({LR: lr}, "first")
    run_queued(study, config, make_reports, [0.3, 0.2])
    enqueue(config, study)
    run_queued(study, config, make_reports, [0.3] * 4)
    study.enqueue({LR: 3e-4}, "first")  # the search was extended
    run_queued(study, config, make_reports, [0.5])
    best = winner(rank(config, study.records.values()))
    assert best is not None and best.record.number == 6 and best.mean is None


def test_nothing_is_confirmed_before_all_runs_have_ended(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4, 3e-4):
        study.enqueue({LR: lr}, "first")
    run_queued(study, config, make_reports, [0.3, 0.1, 0.4])
    enqueue(config, study)
    run_queued(study, config, make_reports, [0.22, 0.36])
    best = winner(rank(config, study.records.values()))
    assert best is not None and best.record.number == 2 and best.mean is None
    assert not is_complete(config, study)


def search_with_baseline(
    study: Study, config: Any, reports: Make, maps: list[float], last: End | None = None
) -> None:
    """Run trials to these APs, the baseline first; `last` is how it ends, if not by its AP."""
    study.enqueue({LR: 1e-3}, "as written")
    for n in range(1, len(maps)):
        study.enqueue({LR: n * 1e-4}, "first")
    if last:
        study.ask(read_space(config.space), config)
        study.end(0, last)
    run_queued(study, config, reports, maps[1:] if last else maps)


@pytest.mark.parametrize("value", [0.25, 0.1])  # below 0.2 ASHA stops it
def test_the_baseline_runs_again_as_often(
    study: Study, config: Any, make_reports: Make, value: float
) -> None:
    search_with_baseline(study, config, make_reports, [value, 0.3, 0.4])
    assert missing_runs(config, study) == [(2, 1), (1, 1), (0, 1), (2, 2), (1, 2), (0, 2)]
    lines: list[str] = []
    enqueue(config, study, lines.append)
    assert lines == ["run again with other seeds, to be confirmed: #2, #1, #0 (the baseline)"]
    run_queued(study, config, make_reports, [0.3, 0.3, 0.42, 0.3, 0.3, 0.44])
    assert is_complete(config, study)
    best = winner(rank(config, study.records.values()))
    assert best is not None and best.record.number == 0  # its fresh runs decide
    assert show_mean(best) == "0.430±0.014"


def test_a_baseline_among_the_best_is_not_run_twice(
    study: Study, config: Any, make_reports: Make
) -> None:
    search_with_baseline(study, config, make_reports, [0.5, 0.3, 0.4])
    assert missing_runs(config, study) == [(0, 1), (2, 1), (0, 2), (2, 2)]


def test_a_stopped_trial_is_not_confirmed_even_if_too_few_finished(
    study: Study, config: Any, make_reports: Make
) -> None:
    search_with_baseline(study, config, make_reports, [0.3, 0.1, 0.15])
    assert missing_runs(config, study) == [(0, 1), (0, 2)]


@pytest.mark.parametrize("end", [End.DIVERGED, End.OUT_OF_MEMORY, End.ERROR, End.LOST])
def test_a_baseline_that_failed_is_not_run_again(
    study: Study, config: Any, make_reports: Make, end: End
) -> None:
    search_with_baseline(study, config, make_reports, [0.0, 0.3, 0.4], end)
    assert {number for number, _ in missing_runs(config, study)} == {1, 2}


def test_a_search_that_was_done_before_stays_done(
    study: Study, config: Any, make_reports: Make
) -> None:
    """As an earlier version left it, which did not confirm the baseline."""
    search_with_baseline(study, config, make_reports, [0.25, 0.3, 0.4])
    for number, seed in ((2, 1), (1, 1), (2, 2), (1, 2)):
        parameters = study.records[number].parameters
        study.enqueue(parameters, f"confirms #{number}", confirms=number, seed=seed)
    run_queued(study, config, make_reports, [0.3, 0.35, 0.3, 0.35])
    assert not is_complete(config, study)  # a search that was cut short still runs them
    study.state = SearchState.DONE
    assert is_complete(config, study)
    rows = rank(config, study.records.values())
    assert rows[0].record.number == 1 and show_mean(rows[0]) == "0.350±0.000"
    assert "set search.confirm.seeds to 3 and give the same command again" in describe_gain(
        config, rows, rows[0]
    )
    more = config.search.model_copy(update={"confirm": Confirm(top=2, seeds=3)})
    config = config.model_copy(update={"search": more})
    assert not is_complete(config, study)
    assert missing_runs(config, study) == [(0, 1), (0, 2), (2, 3), (1, 3), (0, 3)]


def test_off_confirms_nothing(study: Study, make_search: Make, make_reports: Make) -> None:
    config = make_search({"space": SPACE, "search.trials": 1})
    run_queued(study, config, make_reports, [0.3])
    assert missing_runs(config, study) == [] and is_complete(config, study)


def test_asha_does_not_compare_with_confirming_runs(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4, 3e-4):
        study.enqueue({LR: lr}, "first")
    run_queued(study, config, make_reports, [0.3, 0.1, 0.4])
    enqueue(config, study)
    run_queued(study, config, make_reports, [0.9])
    asha = Asha(grace_period=1, reduction_factor=2)
    trial = TrialRecord(9, "sampled", {})
    report = make_reports([0.1, 0.16])[-1]
    assert not stops(asha, 9, trial, report, study.records.values())
    report = make_reports([0.1, 0.14])[-1]
    assert stops(asha, 9, trial, report, study.records.values())
