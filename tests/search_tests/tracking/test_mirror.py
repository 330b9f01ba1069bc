"""A mirror of a study: what it fills in after what, and that a replay writes nothing twice."""

import pytest

from search.study.record import End
from search.study.storage import open_study
from search.study.study import Study
from search.tracking.mirror import SEARCH_UPDATE, Mirror, Part, Update
from search.tracking.search_run import TrackedSearch

from .conftest import FOLDER, described, everything, fill_mlflow, history, runs_of


def test_updates_sort_the_search_first_and_files_last() -> None:
    updates = [Update(Part.FILES, 1), Update(Part.FILES), Update(Part.TRIAL, 7), SEARCH_UPDATE]
    assert sorted(updates) == [updates[3], updates[2], updates[1], updates[0]]


def test_files_are_due_after_the_search_and_after_a_trial_that_ended(
    store: str, study: Study
) -> None:
    due: list[Update] = []
    mirror = Mirror(TrackedSearch(store, study, "due", FOLDER, described), due.append)
    mirror.fill(SEARCH_UPDATE)
    for number in (0, 6):  # the last one runs
        mirror.fill(Update(Part.TRIAL, number))
    assert due == [Update(Part.FILES), Update(Part.FILES, 0)]
    for update in due.copy():
        mirror.fill(update)
    mirror.fill(Update(Part.TRIAL, 0))  # its files are there
    assert len(due) == 2


def test_a_replay_writes_no_row_of_a_trial_twice(store: str, study: Study) -> None:
    study.end(6, End.LOST)
    fill_mlflow(store, study, "replay")
    before = {n: everything(store, run) for n, run in runs_of(store, "replay")[1].items()}
    fill_mlflow(store, open_study(FOLDER, "tiny", trials=9), "replay")
    assert {n: everything(store, run) for n, run in runs_of(store, "replay")[1].items()} == before


def test_a_replay_writes_no_row_of_the_search_twice(store: str, study: Study) -> None:
    fill_mlflow(store, study, "parent")
    before = everything(store, runs_of(store, "parent")[0])
    fill_mlflow(store, open_study(FOLDER, "tiny", trials=9), "parent")
    assert everything(store, runs_of(store, "parent")[0]) == before


def test_a_replay_into_an_empty_store_writes_the_same_rows(store: str, study: Study) -> None:
    study.end(6, End.PRUNED)
    fill_mlflow(store, study, "first place")
    again = open_study(FOLDER, "tiny", trials=9)
    fill_mlflow(store, again, "second place")
    first, second = runs_of(store, "first place")[1], runs_of(store, "second place")[1]
    for number, run in first.items():
        assert history(store, second[number]) == history(store, run)
        assert second[number].data.params == run.data.params
        # Optuna's timestamps of start and end differ a little from ours
        for stamp in ("start_time", "end_time"):
            ours = getattr(run.info, stamp)
            assert getattr(second[number].info, stamp) == pytest.approx(ours, abs=500)
