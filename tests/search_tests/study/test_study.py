"""The record of a search: written once, true, and enough to continue from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.space.config import SearchConfig
from search.space.sampling import base_parameters
from search.space.space import read_space
from search.study.journal import JOURNAL
from search.study.record import End
from search.study.storage import open_study
from search.study.study import OPTUNA_STATES, Study
from trainer.config import TrainConfig

from ..conftest import SPACE

Make = Callable[..., Any]
FOLDER = Path("kept")


def open_tiny(trials: int = 6, seed: int = 0) -> Study:
    """The study of this test, as a new driver opens it."""
    return open_study(FOLDER, "tiny", seed=seed, trials=trials)


def ask(study: Study, config: SearchConfig) -> tuple[int, TrainConfig]:
    return study.ask(read_space(SPACE), config)


def record_trial(study: Study, number: int, reports: list[Any], end: End | None = None) -> None:
    for report in reports:
        study.record(number, report)
    if end is not None:
        study.end(number, end)


def made_up_aps(config: TrainConfig) -> list[float]:
    """APs of a trial that follow from its config alone."""
    unfreeze = config.train.unfreeze
    peak = 0.5 - 0.1 * abs(float(np.log10(unfreeze.lr)) + 2.5) + 0.02 * int(unfreeze.depth)
    return [0.1, peak / 2, peak]


def content(study: Study) -> dict[int, Any]:
    return {
        n: (r.origin, r.parameters, r.reports, r.end, r.text, r.stopped_at, r.times)
        for n, r in study.records.items()
    }


def test_a_report_is_written_once(make_search: Make, make_reports: Make) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    first, second = make_reports([0.1, 0.2])
    assert study.record(number, first)
    assert study.record(number, second)
    size = (FOLDER / JOURNAL).stat().st_size
    assert not study.record(number, second)
    assert (FOLDER / JOURNAL).stat().st_size == size


def test_a_reopened_study_has_everything(make_search: Make, make_reports: Make) -> None:
    study = open_tiny()
    config = make_search()
    study.enqueue(base_parameters(read_space(SPACE), config), "as written")
    record_trial(study, ask(study, config)[0], make_reports([0.1, 0.3, 0.2]), End.FINISHED)
    number, _ = ask(study, config)
    study.record(number, make_reports([0.1, 0.05])[0])
    study.record(number, make_reports([0.1, 0.05])[1], stop=True)
    study.end(number, End.PRUNED)
    number, _ = ask(study, config)
    study.end(number, End.ERROR, "Traceback: é\nKeyError: 'x'")
    record_trial(study, ask(study, config)[0], make_reports([0.2]))
    study.winner = {"trial": 0, "metrics": {}}

    again = open_tiny()
    assert content(again) == content(study)
    assert [r.end for r in again.records.values()] == [End.FINISHED, End.PRUNED, End.ERROR, None]
    assert again.records[1].stopped_at == 1
    assert again.records[2].text.endswith("KeyError: 'x'")
    assert again.winner == {"trial": 0, "metrics": {}}
    assert [r.number for r in again.ended()] == [0, 1, 2]
    for number, record in study.records.items():
        assert again.records[number].started == pytest.approx(record.started, abs=1)
        assert again.records[number].ended == (record.ended and pytest.approx(record.ended, abs=1))


def test_intermediate_values_are_the_best_so_far_of_the_unfreeze_epochs(
    make_search: Make, make_reports: Make
) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    record_trial(study, number, make_reports([0.15, 0.1, 0.3, 0.2], head=1))
    (trial,) = study.optuna.trials
    assert trial.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.3}


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (End.FINISHED, TrialState.COMPLETE),
        (End.PRUNED, TrialState.PRUNED),
        (End.DIVERGED, TrialState.PRUNED),
        (End.OUT_OF_MEMORY, TrialState.PRUNED),
        (End.ERROR, TrialState.FAIL),
        (End.LOST, TrialState.FAIL),
    ],
)
def test_optuna_is_told_what_an_end_means_for_the_sampler(
    make_search: Make, make_reports: Make, end: End, state: TrialState
) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    record_trial(study, number, make_reports([0.1, 0.4, 0.2]), end)
    (trial,) = study.optuna.trials
    assert trial.state is state
    assert trial.user_attrs["end"] == end.value
    if end is End.FINISHED:
        assert trial.value == 0.4
    infeasible = end in {End.DIVERGED, End.OUT_OF_MEMORY}
    assert trial.constraints == ({"feasible": 1.0} if infeasible else {})
    assert open_tiny().records[number].end is end


def test_the_value_of_a_finished_trial_is_the_best_of_its_unfreeze_epochs(
    make_search: Make, make_reports: Make
) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    record_trial(
        study, number, make_reports([0.5, 0.2, 0.3]), End.FINISHED
    )  # the head phase was better
    assert study.optuna.trials[0].value == 0.3


def test_the_text_of_an_error_is_stored_without_passwords_and_control_characters(
    make_search: Make,
) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    study.end(number, End.ERROR, "first\nno http://me:canary@host/\x1b[2J")
    for record in (study.records[number], open_tiny().records[number]):
        assert record.text.startswith("first\nno http://me:***@host/")
        assert "\x1b" not in record.text


def test_optuna_has_a_state_for_every_end() -> None:
    assert OPTUNA_STATES.keys() == set(End)


@pytest.mark.parametrize("end", [end for end in End if end is not End.FINISHED])
def test_a_trial_can_end_before_its_first_report(make_search: Make, end: End) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    study.end(number, end, "why")
    assert study.optuna.trials[0].state is OPTUNA_STATES[end]
    assert open_tiny().records[number].text == "why"


def test_a_second_end_is_ignored(make_search: Make, make_reports: Make) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    record_trial(study, number, make_reports([0.1, 0.2]), End.DIVERGED)
    study.end(number, End.FINISHED)
    assert study.records[number].end is End.DIVERGED
    assert open_tiny().records[number].end is End.DIVERGED


def test_an_end_that_optuna_was_not_told_does_not_count(
    make_search: Make, make_reports: Make
) -> None:
    study = open_tiny()
    number, _ = ask(study, make_search())
    record_trial(study, number, make_reports([0.1, 0.2]))
    optuna.Trial(study.optuna, study.optuna.trials[0]._trial_id).set_user_attr("end", "finished")
    again = open_tiny()  # the driver died between the two writes
    again.release_running()
    assert again.records[number].end is None
    assert again.waiting == [number]


def test_a_trial_left_running_is_handed_out_first_with_the_same_config(
    make_search: Make, make_reports: Make
) -> None:
    study, config = open_tiny(), make_search()
    before = dict(ask(study, config) for _ in range(3))
    record_trial(study, 0, make_reports([0.1, 0.2]), End.FINISHED)
    record_trial(study, 2, make_reports([0.1]))

    again = open_tiny()
    again.release_running()
    assert again.waiting == [1, 2]
    assert {t.state for t in again.optuna.trials} == {TrialState.COMPLETE, TrialState.WAITING}
    assert [ask(again, config) for _ in range(2)] == [(1, before[1]), (2, before[2])]
    assert again.waiting == []
    assert ask(again, config)[0] == 3


def test_a_trial_that_ended_is_not_released(make_search: Make) -> None:
    study, config = open_tiny(), make_search()
    for end in (End.PRUNED, End.LOST, End.DIVERGED):
        study.end(ask(study, config)[0], end)
    study.release_running()
    assert study.waiting == []


def test_enqueued_trials_are_handed_out_first_in_order_with_their_parameters(
    make_search: Make,
) -> None:
    study, config = open_tiny(), make_search()
    point = base_parameters(read_space(SPACE), config)
    study.enqueue(point, "as written")
    study.enqueue({**point, "train.unfreeze.depth": 5}, "all unfrozen")
    assert study.waiting == [0, 1]
    assert [ask(study, config)[1].train.unfreeze.depth for _ in range(2)] == [2, 5]
    assert [r.origin for r in open_tiny().records.values()] == ["as written", "all unfrozen"]
    assert ask(study, config)[0] == 2
    assert study.records[2].origin == "sampled"


def run_trials(
    config: SearchConfig, make_reports: Make, trials: int, breaks: set[int]
) -> list[Any]:
    """Parameters of so many trials, two at a time, with a new driver at each break."""
    study = open_tiny(trials)
    running: dict[int, TrainConfig] = {}
    while len(study.ended()) < trials:
        while len(running) < 2 and (study.waiting or len(study.records) < trials):
            number, trial = ask(study, config)
            running[number] = trial
        first = min(running)
        record_trial(study, first, make_reports(made_up_aps(running.pop(first))), End.FINISHED)
        if len(study.ended()) in breaks:
            study = open_tiny(trials)
            study.release_running()
            running = {}
    return [record.parameters for record in study.records.values()]


def test_a_continued_search_samples_what_an_unbroken_one_does(
    make_search: Make, make_reports: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = []
    for i, breaks in enumerate((set(), {1, 6, 7, 11})):
        place = tmp_path / str(i)
        place.mkdir()
        monkeypatch.chdir(place)
        sampled.append(run_trials(make_search(), make_reports, 14, breaks))
    assert sampled[0] == sampled[1]
    assert len({json.dumps(parameters, sort_keys=True) for parameters in sampled[0]}) == 14


def test_after_a_kill_while_asking_the_same_parameters_are_sampled(make_search: Make) -> None:
    config = make_search()
    unbroken = [ask(open_tiny(), config)[1]]
    (FOLDER / JOURNAL).unlink()
    open_tiny().optuna.ask()  # a trial without parameters: killed before the first was written
    again = open_tiny()
    again.release_running()
    assert [ask(again, config)[1]] == unbroken


def test_another_seed_samples_other_parameters(make_search: Make) -> None:
    config = make_search()
    first = ask(open_tiny(seed=0), config)[1]
    (FOLDER / JOURNAL).unlink()
    assert ask(open_tiny(seed=1), config)[1] != first


def test_a_third_of_the_trials_is_sampled_at_random_but_ten_at_most() -> None:
    assert [open_study(Path(str(t)), "x", trials=t).startup_trials for t in (1, 6, 30, 300)] == [
        0,
        2,
        10,
        10,
    ]


def test_trials_that_confirm_others_are_not_searched_trials(make_search: Make) -> None:
    study, config = open_tiny(), make_search()
    number, _ = ask(study, config)
    study.enqueue(study.records[number].parameters, "confirms #0", confirms=number, seed=1)
    assert [r.number for r in study.searched()] == [number]
    assert [r.number for r in open_tiny().searched()] == [number]
