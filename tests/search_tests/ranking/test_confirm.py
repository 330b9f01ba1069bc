"""Confirming: which configurations are run again, and what their mean decides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.ranking.asha import stops
from search.ranking.confirm import enqueue, is_complete, missing
from search.ranking.gain import describe_gain
from search.ranking.results import config_of, rank, show_mean, to_confirm, winner
from search.space.config import Asha, Confirm
from search.space.space import read_space
from search.study.study import End, Study, TrialRecord, open_study

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
    assert said == ["run again with other seeds, to be confirmed: #2, #0"]
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
    assert show_mean(best) == "0.340±0.028"  # of the fresh runs
    assert best.score == pytest.approx(0.34) and best.map == 0.3
    assert rows[-1].score == 0.1  # which ran once
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


def search_as_written(
    study: Study, config: Any, reports: Make, maps: list[float], last: End | None = None
) -> None:
    """Run trials to these APs, the configuration as written first; it may end in another way."""
    study.enqueue({LR: 1e-3}, "as written")
    for n in range(1, len(maps)):
        study.enqueue({LR: n * 1e-4}, "first")
    if last:
        study.ask(read_space(config.space), config)
        study.end(0, last)
    run_waiting(study, config, reports, maps[1:] if last else maps)


@pytest.mark.parametrize("value", [0.25, 0.1])  # below 0.2 ASHA stops it
def test_the_configuration_as_written_runs_again_as_often(
    study: Study, config: Any, make_reports: Make, value: float
) -> None:
    search_as_written(study, config, make_reports, [value, 0.3, 0.4])
    assert missing(config, study) == [(2, 1), (1, 1), (0, 1), (2, 2), (1, 2), (0, 2)]
    said: list[str] = []
    enqueue(config, study, said.append)
    assert said == ["run again with other seeds, to be confirmed: #2, #1, #0 (as written)"]
    run_waiting(study, config, make_reports, [0.3, 0.3, 0.42, 0.3, 0.3, 0.44])
    assert is_complete(config, study)
    best = winner(rank(config, study.records.values()))
    assert best is not None and best.record.number == 0  # by its fresh runs, whatever came before
    assert show_mean(best) == "0.430±0.014"


def test_among_the_best_the_configuration_as_written_is_not_run_twice(
    study: Study, config: Any, make_reports: Make
) -> None:
    search_as_written(study, config, make_reports, [0.5, 0.3, 0.4])
    assert missing(config, study) == [(0, 1), (2, 1), (0, 2), (2, 2)]


def test_who_was_stopped_is_not_confirmed_though_there_is_room(
    study: Study, config: Any, make_reports: Make
) -> None:
    search_as_written(study, config, make_reports, [0.3, 0.1, 0.15])
    assert missing(config, study) == [(0, 1), (0, 2)]


@pytest.mark.parametrize("end", [End.DIVERGED, End.OUT_OF_MEMORY, End.ERROR, End.LOST])
def test_where_the_configuration_as_written_failed_it_is_not_run_again(
    study: Study, config: Any, make_reports: Make, end: End
) -> None:
    search_as_written(study, config, make_reports, [0.0, 0.3, 0.4], end)
    assert {number for number, _ in missing(config, study)} == {1, 2}


def test_a_configuration_that_was_sampled_twice_is_confirmed_once(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.confirm": {"top": 2, "seeds": 1}})
    same, other, written = {LR: 2e-4}, {LR: 3e-4}, {LR: 1e-3}
    records = [
        make_record(
            n,
            [0.1] + [value] * 9,
            origin="sampled" if n else "as written",
            parameters=parameters,
            end=End.FINISHED,
        )
        for n, (value, parameters) in enumerate(
            [(0.3, written), (0.5, same), (0.6, same), (0.4, other), (0.9, written)]
        )
    ]
    assert [r.number for r in to_confirm(config, records)] == [2, 3, 0]


def test_a_search_that_was_done_before_stays_done(
    study: Study, config: Any, make_reports: Make
) -> None:
    """As an earlier version left it, which did not run the configuration as written again."""
    search_as_written(study, config, make_reports, [0.25, 0.3, 0.4])
    for number, seed in ((2, 1), (1, 1), (2, 2), (1, 2)):
        parameters = study.records[number].parameters
        study.enqueue(parameters, f"confirms #{number}", confirms=number, seed=seed)
    run_waiting(study, config, make_reports, [0.3, 0.35, 0.3, 0.35])
    assert not is_complete(config, study)  # one that was cut short runs them still
    study.set("state", "done")
    assert is_complete(config, study)
    rows = rank(config, study.records.values())
    assert rows[0].record.number == 1 and show_mean(rows[0]) == "0.350±0.000"
    assert "set search.confirm.seeds to 3 and give the same line again" in describe_gain(
        config, rows, rows[0]
    )
    more = config.search.model_copy(update={"confirm": Confirm(top=2, seeds=3)})
    config = config.model_copy(update={"search": more})
    assert not is_complete(config, study)
    assert missing(config, study) == [(0, 1), (0, 2), (2, 3), (1, 3), (0, 3)]


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
