"""Confirming: which configurations are run again, and what their mean decides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.asha import stops
from search.config import Asha
from search.confirm import enqueue, is_complete, missing
from search.results import config_of, rank, show_mean, winner
from search.space import read_space
from search.study import End, Study, TrialRecord, open_study

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


def run_waiting(study: Study, config: Any, reports: Make, maps: list[float]) -> None:
    """Run what waits, each trial to the AP of its turn; below 0.2 ASHA stops it."""
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
    run_waiting(study, config, make_reports, [0.3, 0.1, 0.4])
    assert missing(config, study) == [(2, 1), (0, 1), (2, 2), (0, 2)]
    assert not is_complete(config, study)
    said: list[str] = []
    assert enqueue(config, study, said.append) and not enqueue(config, study, said.append)
    assert said == ["the best so far run again with other seeds, to be confirmed: #2, #0"]
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
    run_waiting(study, config, make_reports, [0.3, 0.1, 0.4])
    enqueue(config, study)
    run_waiting(study, config, make_reports, [0.22, 0.36, 0.22, 0.32])
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
    assert show_mean(best) == "0.327±0.031"
    assert best.best_run.number == 4
    assert config_of(config, best.best_run, "fp32").train.seed == 1


def test_a_better_one_that_is_not_confirmed_yet_wins(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4):
        study.enqueue({LR: lr}, "first")
    run_waiting(study, config, make_reports, [0.3, 0.2])
    enqueue(config, study)
    run_waiting(study, config, make_reports, [0.3] * 4)
    study.enqueue({LR: 3e-4}, "first")  # of a search that was extended
    run_waiting(study, config, make_reports, [0.5])
    best = winner(rank(config, study.records.values()))
    assert best is not None and best.record.number == 6 and best.mean is None


def test_without_an_end_of_all_runs_nothing_is_confirmed(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4, 3e-4):
        study.enqueue({LR: lr}, "first")
    run_waiting(study, config, make_reports, [0.3, 0.1, 0.4])
    enqueue(config, study)
    run_waiting(study, config, make_reports, [0.22, 0.36])
    best = winner(rank(config, study.records.values()))
    assert best is not None and best.record.number == 2 and best.mean is None
    assert not is_complete(config, study)


def test_off_confirms_nothing(study: Study, make_search: Make, make_reports: Make) -> None:
    config = make_search({"space": SPACE, "search.trials": 1})
    run_waiting(study, config, make_reports, [0.3])
    assert missing(config, study) == [] and is_complete(config, study)


def test_confirming_runs_are_not_judged_and_judge_nobody(
    study: Study, config: Any, make_reports: Make
) -> None:
    for lr in (1e-4, 2e-4, 3e-4):
        study.enqueue({LR: lr}, "first")
    run_waiting(study, config, make_reports, [0.3, 0.1, 0.4])
    enqueue(config, study)
    run_waiting(study, config, make_reports, [0.9])
    asha = Asha(grace_period=1, reduction_factor=2)
    own = TrialRecord(9, "sampled", {})
    report = make_reports([0.1, 0.16])[-1]
    assert not stops(asha, 9, own, report, study.records.values())
    report = make_reports([0.1, 0.14])[-1]
    assert stops(asha, 9, own, report, study.records.values())
