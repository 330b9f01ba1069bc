"""Optuna as a Tune searcher: which trial is handed out when, and which are held."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from search.running.tune.searcher import StudySearcher
from search.space.space import read_space
from search.study.record import End
from search.study.storage import open_study
from search.study.study import Study
from trainer.config import TrainConfig
from trainer.model.outline import count_stages

Make = Callable[..., Any]
SPACE = {"train.unfreeze.lr": {"log": [1e-4, 1e-2]}}
HEAD_SPACE = SPACE | {"train.head.lr": {"log": [1e-4, 1e-2]}}


def opened() -> Study:
    study = open_study(Path("kept"), "tiny", trials=6)
    study.release_running()
    return study


def searcher(study: Study, config: Any, *, trials: int = 6, slots: int = 9) -> Any:
    return StudySearcher(
        study,
        read_space(config.space),
        config,
        trials=trials,
        stages=count_stages,
        slots=lambda: slots,
        confirm=lambda: False,
    )


def test_a_suggestion_is_a_number_and_a_complete_config(make_search: Make) -> None:
    study = opened()
    suggestion = searcher(study, make_search({"space": SPACE})).suggest("a")
    assert suggestion is not None and suggestion["number"] == 0
    config = TrainConfig.model_validate(suggestion["config"])
    assert config.train.unfreeze.lr == study.records[0].parameters["train.unfreeze.lr"]


def test_a_trial_waits_while_another_trains_its_head(make_search: Make, make_reports: Make) -> None:
    study = opened()
    out = searcher(study, make_search({"space": SPACE, "train.head.epochs": 2}), slots=2)
    assert out.suggest("a")["number"] == 0
    first, second, third = make_reports([0.1, 0.2, 0.3], head=2)
    assert out.suggest("b") is None
    study.record(0, first)
    assert out.suggest("b") is None and out.suggest("c") is None
    study.record(0, second)
    assert out.suggest("b")["number"] == 1
    study.record(0, third)
    assert len(study.records) == 2


def test_a_held_trial_trains_the_head_itself_if_the_other_ended_before(
    make_search: Make,
) -> None:
    study = opened()
    out = searcher(study, make_search({"space": SPACE}))
    assert out.suggest("a")["number"] == 0
    assert out.suggest("b") is None
    study.end(0, End.DIVERGED)
    out.on_trial_complete("a")
    assert out.suggest("b")["number"] == 1
    assert out.suggest("c") is None


def test_a_held_trial_is_the_same_one_later(make_search: Make, make_reports: Make) -> None:
    study = opened()
    out = searcher(study, make_search({"space": SPACE}), slots=2)
    out.suggest("a")
    assert [out.suggest(name) for name in "bcb"] == [None] * 3
    held = study.records[1].parameters
    study.record(0, make_reports([0.1])[0])
    config = TrainConfig.model_validate(out.suggest("d")["config"])
    assert config.train.unfreeze.lr == held["train.unfreeze.lr"]
    assert study.records.keys() == {0, 1}


def test_a_trial_that_needs_no_running_phase_overtakes_held_ones(
    make_search: Make, make_reports: Make
) -> None:
    study = opened()
    config = make_search({"space": HEAD_SPACE})
    for number, head in enumerate((1e-3, 1e-3, 2e-3, 1e-3, 2e-3), start=1):
        study.enqueue({"train.unfreeze.lr": number / 1e3, "train.head.lr": head}, "first")
    out = searcher(study, config, trials=5, slots=4)
    assert [out.suggest(name)["number"] for name in "ab"] == [0, 2]
    assert out.suggest("c") is None and not study.waiting
    study.record(2, make_reports([0.1])[0])
    assert out.suggest("c")["number"] == 4
    study.record(0, make_reports([0.1])[0])
    assert out.suggest("d")["number"] == 1
    study.end(0, End.FINISHED)
    out.on_trial_complete("a")
    assert out.suggest("e")["number"] == 3


def test_held_trials_start_in_order_and_before_new_ones(
    make_search: Make, make_reports: Make
) -> None:
    study = opened()
    out = searcher(study, make_search({"space": SPACE}), slots=4)
    assert [out.suggest("a")["number"], out.suggest("b")] == [0, None]
    assert study.records.keys() == {0, 1, 2, 3}  # one per free slot
    study.record(0, make_reports([0.1])[0])
    assert [out.suggest(name)["number"] for name in "bcd"] == [1, 2, 3]


def test_a_trial_that_waits_has_not_started(make_search: Make, make_reports: Make) -> None:
    study = opened()
    out = searcher(study, make_search({"space": SPACE}), slots=2)
    out.suggest("a")
    out.suggest("b")
    held = study.records[1]
    assert study.records[0].running and study.records[0].started
    assert not held.running and held.started is None and opened().records[1].started is None
    study.record(0, make_reports([0.1])[0])
    before = time.time()
    out.suggest("b")
    assert held.running and held.started is not None and held.started >= before
    assert opened().records[1].started == held.started


def test_trials_of_different_heads_do_not_wait_for_each_other(make_search: Make) -> None:
    out = searcher(opened(), make_search({"space": HEAD_SPACE}))
    assert [out.suggest(name)["number"] for name in "abc"] == [0, 1, 2]


def test_without_a_head_phase_no_trial_waits(make_search: Make) -> None:
    config = make_search({"space": SPACE, "train.head": {"epochs": 0}})
    out = searcher(opened(), config)
    assert [out.suggest(name)["number"] for name in "abc"] == [0, 1, 2]


def test_a_trial_that_had_its_head_before_an_interruption_holds_no_other_back(
    make_search: Make, make_reports: Make
) -> None:
    study = opened()
    config = make_search({"space": SPACE})
    searcher(study, config).suggest("a")
    study.record(0, make_reports([0.1])[0])
    again = searcher(opened(), config)
    assert [again.suggest(name)["number"] for name in "ab"] == [0, 1]


def test_a_trial_waits_for_any_phase_that_another_computes(
    make_search: Make, make_reports: Make
) -> None:
    study = opened()
    config = make_search(
        {
            "space": {"train.unfreeze.lr": {"choice": [1e-3]}},
            "train.unfreeze.open_epochs": 2,
            "train.unfreeze.epochs": 3,
            "search.asha": "off",
        }
    )
    out = searcher(study, config)
    assert out.suggest("a")["number"] == 0
    for report in make_reports([0.1, 0.2, 0.3, 0.4]):  # the head, and three unfreeze epochs
        assert out.suggest("b") is None
        study.record(0, report)
    assert out.suggest("b")["number"] == 1


def test_a_trial_that_has_epochs_does_not_wait(make_search: Make, make_reports: Make) -> None:
    study = opened()
    config = make_search({"space": SPACE, "train.head.epochs": 2})
    for _ in range(2):
        study.ask(read_space(config.space), config)
    study.record(1, make_reports([0.1], head=2)[0])
    again = searcher(opened(), config)
    assert [again.suggest(name)["number"] for name in "ab"] == [0, 1]


def test_no_more_trials_are_asked_for_than_the_cluster_holds(make_search: Make) -> None:
    study = opened()
    out = searcher(study, make_search({"space": HEAD_SPACE}), slots=2)
    assert [out.suggest(name) is None for name in "abcd"] == [False, False, True, True]
    assert len(study.records) == 2
    study.end(0, End.ERROR)
    out.on_trial_complete("a")
    assert out.suggest("c")["number"] == 2


def test_waiting_trials_wait_while_no_slot_is_free(make_search: Make) -> None:
    study = opened()
    config = make_search({"space": HEAD_SPACE})
    for number in (1, 2, 3):
        study.enqueue({"train.unfreeze.lr": 1e-3, "train.head.lr": number / 1e3}, "first")
    out = searcher(study, config, slots=1)
    assert [out.suggest(name) is None for name in "abc"] == [False, True, True]
    assert study.waiting == [1, 2]


def test_without_any_slot_one_trial_is_handed_out_so_that_tune_keeps_checking(
    make_search: Make,
) -> None:
    out = searcher(opened(), make_search({"space": HEAD_SPACE}), slots=0)
    suggestion = out.suggest("a")
    assert suggestion is not None and suggestion["number"] == 0
    assert out.suggest("b") is None


def test_it_is_finished_at_the_number_of_trials(make_search: Make) -> None:
    study = opened()
    out = searcher(study, make_search({"space": HEAD_SPACE}), trials=2)
    assert [out.suggest(name)["number"] for name in "ab"] == [0, 1]
    assert out.suggest("c") is None  # their results decide what is confirmed
    for name in "ab":
        out.on_trial_complete(name)
    assert out.suggest("c") == Searcher.FINISHED
    assert len(study.records) == 2


def test_it_is_not_finished_while_a_trial_is_held(make_search: Make) -> None:
    out = searcher(opened(), make_search({"space": SPACE}), trials=2)
    out.suggest("a")
    assert [out.suggest("b"), out.suggest("b")] == [None, None]


def test_waiting_trials_come_first_and_count(make_search: Make) -> None:
    study = opened()
    config = make_search({"space": HEAD_SPACE})
    first = searcher(study, config, trials=3)
    before = [first.suggest(name) for name in "ab"]
    again = opened()
    second = searcher(again, config, trials=3)
    assert [second.suggest(name) for name in "xy"] == before
    assert second.suggest("z")["number"] == 2
    assert second.suggest("w") is None


def test_fewer_trials_than_there_are_is_finished_at_once(make_search: Make) -> None:
    study = opened()
    config = make_search({"space": HEAD_SPACE})
    out = searcher(study, config, trials=3)
    for number, name in enumerate("abc"):
        out.suggest(name)
        study.end(number, End.ERROR)
    assert searcher(opened(), config, trials=1).suggest("x") == Searcher.FINISHED


def test_a_trial_whose_worker_died_is_handed_out_three_more_times(make_search: Make) -> None:
    study = opened()
    out = searcher(study, make_search({"space": HEAD_SPACE}))
    first = out.suggest("a")
    for name, following in zip("abc", "bcd", strict=True):
        out.on_trial_complete(name, error=True)
        assert study.records[0].end is None
        assert out.suggest(following) == first
    out.on_trial_complete("d", error=True)
    assert study.records[0].end is End.LOST and study.records[0].text
    assert out.suggest("e")["number"] == 1


def test_a_known_end_stays_when_the_worker_dies(make_search: Make) -> None:
    study = opened()
    out = searcher(study, make_search({"space": HEAD_SPACE}))
    out.suggest("a")
    study.end(0, End.DIVERGED)
    out.on_trial_complete("a", error=True)
    assert study.records[0].end is End.DIVERGED and not study.waiting
    assert out.suggest("b")["number"] == 1  # it is not handed out again


def test_nodes_may_be_lost_three_times_without_an_epoch_in_between(
    make_search: Make, make_reports: Make
) -> None:
    study = opened()
    out = searcher(study, make_search({"space": HEAD_SPACE}))
    first = out.suggest("0")
    reports = iter(make_reports([0.1, 0.2]))
    for again in range(1, 9):
        study.node_lost.add(0)
        out.on_trial_complete(str(again - 1), error=True)
        assert out.suggest(str(again)) == first
        if again % 3 == 0:
            study.record(0, next(reports))
    assert not study.node_lost and study.records[0].end is None
    for again in range(9, 11):
        study.node_lost.add(0)
        out.on_trial_complete(str(again - 1), error=True)
        out.suggest(str(again))
    assert study.records[0].end is End.LOST
