"""The record of a search: written once, true, and enough to go on from."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.space.config import SearchConfig
from search.space.sampling import as_written
from search.space.space import read_space
from search.study.journal import JOURNAL
from search.study.record import End, from_json, to_json
from search.study.storage import open_study, read_study
from search.study.study import STATES, Study
from trainer.config import BadInput, TrainConfig

from ..conftest import SPACE

Make = Callable[..., Any]
FOLDER = Path("kept")


def opened(trials: int = 6, seed: int = 0) -> Study:
    """The study of this test, as a new driver opens it."""
    return open_study(FOLDER, "tiny", seed=seed, trials=trials)


def asked(study: Study, config: SearchConfig) -> tuple[int, TrainConfig]:
    return study.ask(read_space(SPACE), config)


def told(study: Study, number: int, reports: list[Any], end: End | None = None) -> None:
    for report in reports:
        study.record(number, report)
    if end is not None:
        study.end(number, end)


def made_up(config: TrainConfig) -> list[float]:
    """APs of a trial that follow from its config alone."""
    unfreeze = config.train.unfreeze
    peak = 0.5 - 0.1 * abs(float(np.log10(unfreeze.lr)) + 2.5) + 0.02 * int(unfreeze.depth)
    return [0.1, peak / 2, peak]


def without_clock(study: Study) -> dict[int, Any]:
    return {
        n: (r.origin, r.parameters, r.reports, r.end, r.text, r.stopped_at, r.times)
        for n, r in study.records.items()
    }


# -- reports --------------------------------------------------------------------------------------


def test_a_report_is_written_once(make_search: Make, make_reports: Make) -> None:
    study = opened()
    number, _ = asked(study, make_search())
    first, second = make_reports([0.1, 0.2])
    assert study.record(number, first)
    assert study.record(number, second)
    size = (FOLDER / JOURNAL).stat().st_size
    assert not study.record(number, second)
    assert (FOLDER / JOURNAL).stat().st_size == size


def test_everything_survives_reopening(make_search: Make, make_reports: Make) -> None:
    study = opened()
    config = make_search()
    study.enqueue(as_written(read_space(SPACE), config), "as written")
    told(study, asked(study, config)[0], make_reports([0.1, 0.3, 0.2]), End.FINISHED)
    number, _ = asked(study, config)
    study.record(number, make_reports([0.1, 0.05])[0])
    study.record(number, make_reports([0.1, 0.05])[1], stop=True)
    study.end(number, End.PRUNED)
    number, _ = asked(study, config)
    study.end(number, End.ERROR, "Traceback: é\nKeyError: 'x'")
    told(study, asked(study, config)[0], make_reports([0.2]))
    study.winner = {"trial": 0, "metrics": {}}

    again = opened()
    assert without_clock(again) == without_clock(study)
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
    study = opened()
    number, _ = asked(study, make_search())
    told(study, number, make_reports([0.15, 0.1, 0.3, 0.2], head=1))
    (trial,) = study.optuna.trials
    assert trial.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.3}


def test_a_report_survives_the_way_from_a_worker(make_reports: Make) -> None:
    (report,) = make_reports([0.25])
    assert from_json(to_json(report)) == report


def test_best_last_and_best_until_read_the_reports(make_record: Make) -> None:
    record = make_record(0, [0.05, 0.2, 0.4, 0.3], head=1)
    assert record.best.epoch == 3 and record.last.epoch == 4 and record.unfreeze_epoch == 3
    assert [record.best_until(e) for e in (1, 2, 3, 4)] == [0.2, 0.4, 0.4, None]
    empty = make_record(1, [])
    assert (empty.best, empty.last, empty.unfreeze_epoch) == (None, None, 0)
    assert empty.best_until(1) is None


def test_the_head_phase_does_not_count_for_what_was_best_until(make_record: Make) -> None:
    assert make_record(0, [0.5, 0.1], head=1).best_until(1) == 0.1


# -- ends -----------------------------------------------------------------------------------------


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
def test_an_end_is_told_to_optuna_as_what_it_means(
    make_search: Make, make_reports: Make, end: End, state: TrialState
) -> None:
    study = opened()
    number, _ = asked(study, make_search())
    told(study, number, make_reports([0.1, 0.4, 0.2]), end)
    (trial,) = study.optuna.trials
    assert trial.state is state
    assert trial.user_attrs["end"] == end.value
    if end is End.FINISHED:
        assert trial.value == 0.4
    infeasible = end in {End.DIVERGED, End.OUT_OF_MEMORY}
    assert trial.constraints == ({"feasible": 1.0} if infeasible else {})
    assert opened().records[number].end is end


def test_optuna_is_told_what_unfreezing_came_to(make_search: Make, make_reports: Make) -> None:
    study = opened()
    number, _ = asked(study, make_search())
    told(study, number, make_reports([0.5, 0.2, 0.3]), End.FINISHED)  # the head phase was better
    assert study.optuna.trials[0].value == 0.3


def test_what_went_wrong_is_kept_without_passwords_and_control_characters(
    make_search: Make,
) -> None:
    study = opened()
    number, _ = asked(study, make_search())
    study.end(number, End.ERROR, "first\nno http://me:canary@host/\x1b[2J")
    for record in (study.records[number], opened().records[number]):
        assert record.text.startswith("first\nno http://me:***@host/")
        assert "\x1b" not in record.text


def test_every_end_has_a_state() -> None:
    assert STATES.keys() == set(End)


@pytest.mark.parametrize("end", [end for end in End if end is not End.FINISHED])
def test_a_trial_can_end_before_its_first_report(make_search: Make, end: End) -> None:
    study = opened()
    number, _ = asked(study, make_search())
    study.end(number, end, "why")
    assert study.optuna.trials[0].state is STATES[end]
    assert opened().records[number].text == "why"


def test_an_end_is_written_once_and_the_first_stays(make_search: Make, make_reports: Make) -> None:
    study = opened()
    number, _ = asked(study, make_search())
    told(study, number, make_reports([0.1, 0.2]), End.DIVERGED)
    study.end(number, End.FINISHED)
    assert study.records[number].end is End.DIVERGED
    assert opened().records[number].end is End.DIVERGED


def test_an_end_that_optuna_never_heard_of_is_none(make_search: Make, make_reports: Make) -> None:
    study = opened()
    number, _ = asked(study, make_search())
    told(study, number, make_reports([0.1, 0.2]))
    optuna.Trial(study.optuna, study.optuna.trials[0]._trial_id).set_user_attr("end", "finished")
    again = opened()  # the driver died between the two writes
    again.release_running()
    assert again.records[number].end is None
    assert again.waiting == [number]


# -- going on -------------------------------------------------------------------------------------


def test_a_trial_left_running_waits_again_and_is_handed_out_first_with_the_same_config(
    make_search: Make, make_reports: Make
) -> None:
    study, config = opened(), make_search()
    before = dict(asked(study, config) for _ in range(3))
    told(study, 0, make_reports([0.1, 0.2]), End.FINISHED)
    told(study, 2, make_reports([0.1]))

    again = opened()
    again.release_running()
    assert again.waiting == [1, 2]
    assert {t.state for t in again.optuna.trials} == {TrialState.COMPLETE, TrialState.WAITING}
    assert [asked(again, config) for _ in range(2)] == [(1, before[1]), (2, before[2])]
    assert again.waiting == []
    assert asked(again, config)[0] == 3


def test_a_trial_that_ended_is_not_released(make_search: Make) -> None:
    study, config = opened(), make_search()
    for end in (End.PRUNED, End.LOST, End.DIVERGED):
        study.end(asked(study, config)[0], end)
    study.release_running()
    assert study.waiting == []


def test_enqueued_points_come_first_in_order_and_as_given(make_search: Make) -> None:
    study, config = opened(), make_search()
    point = as_written(read_space(SPACE), config)
    study.enqueue(point, "as written")
    study.enqueue({**point, "train.unfreeze.depth": 5}, "all unfrozen")
    assert study.waiting == [0, 1]
    assert [asked(study, config)[1].train.unfreeze.depth for _ in range(2)] == [2, 5]
    assert [r.origin for r in opened().records.values()] == ["as written", "all unfrozen"]
    assert asked(study, config)[0] == 2
    assert study.records[2].origin == "sampled"


def play(config: SearchConfig, make_reports: Make, trials: int, breaks: set[int]) -> list[Any]:
    """Parameters of so many trials, two at a time, with a new driver at each break."""
    study = opened(trials)
    running: dict[int, TrainConfig] = {}
    while len(study.ended()) < trials:
        while len(running) < 2 and (study.waiting or len(study.records) < trials):
            number, trial = asked(study, config)
            running[number] = trial
        first = min(running)
        told(study, first, make_reports(made_up(running.pop(first))), End.FINISHED)
        if len(study.ended()) in breaks:
            study = opened(trials)
            study.release_running()
            running = {}
    return [record.parameters for record in study.records.values()]


def test_continued_sampling_is_unbroken_sampling(
    make_search: Make, make_reports: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for i, breaks in enumerate((set(), {1, 6, 7, 11})):
        place = tmp_path / str(i)
        place.mkdir()
        monkeypatch.chdir(place)
        found.append(play(make_search(), make_reports, 14, breaks))
    assert found[0] == found[1]
    assert len({json.dumps(parameters, sort_keys=True) for parameters in found[0]}) == 14


def test_a_driver_killed_while_it_asked_samples_what_it_would_have(make_search: Make) -> None:
    config = make_search()
    unbroken = [asked(opened(), config)[1]]
    (FOLDER / JOURNAL).unlink()
    opened().optuna.ask()  # a trial without parameters: killed before the first was written
    again = opened()
    again.release_running()
    assert [asked(again, config)[1]] == unbroken


def test_another_seed_samples_otherwise(make_search: Make) -> None:
    config = make_search()
    first = asked(opened(seed=0), config)[1]
    (FOLDER / JOURNAL).unlink()
    assert asked(opened(seed=1), config)[1] != first


def test_sampling_learns_after_a_third_of_the_trials() -> None:
    assert [open_study(Path(str(t)), "x", trials=t).startup for t in (1, 6, 30, 300)] == [
        0,
        2,
        10,
        10,
    ]


# -- reading -------------------------------------------------------------------------------------


def test_reading_a_study_writes_nothing(make_search: Make, make_reports: Make) -> None:
    study = opened()
    told(study, asked(study, make_search())[0], make_reports([0.1]))
    before = (FOLDER / JOURNAL).read_bytes()
    assert without_clock(read_study(FOLDER, "tiny")) == without_clock(study)
    assert (FOLDER / JOURNAL).read_bytes() == before
    assert [file.name for file in FOLDER.iterdir()] == [JOURNAL]


def test_reading_a_killed_drivers_study_does_not_spoil_it(
    make_search: Make, make_reports: Make
) -> None:
    study, config = opened(), make_search()
    told(study, asked(study, config)[0], make_reports([0.1, 0.2]), End.FINISHED)
    with (FOLDER / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    assert without_clock(read_study(FOLDER, "tiny")) == without_clock(study)
    again = opened()
    asked(again, config)
    assert opened().records.keys() == {0, 1}


def test_there_is_no_study_to_read_where_none_was_begun() -> None:
    with pytest.raises(FileNotFoundError, match="no search in kept"):
        read_study(FOLDER, "tiny")
    assert not FOLDER.exists()


def test_a_database_that_cannot_be_opened_is_bad_input(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/none/studies.db"
    with pytest.raises(BadInput, match="study: sqlite:.* cannot be opened: ") as raised:
        open_study(FOLDER, "tiny", uri)
    assert "\n" not in str(raised.value)


def test_trials_that_confirm_are_none_of_the_searchs_own(make_search: Make) -> None:
    study, config = opened(), make_search()
    number, _ = asked(study, config)
    study.enqueue(study.records[number].parameters, "confirms #0", confirms=number, seed=1)
    assert [r.number for r in study.searched()] == [number]
    assert [r.number for r in opened().searched()] == [number]


def test_records_are_plain_data(make_record: Make) -> None:
    record = make_record(0, [0.1, 0.2], end=End.PRUNED)
    assert pickle.loads(pickle.dumps(record)) == record
