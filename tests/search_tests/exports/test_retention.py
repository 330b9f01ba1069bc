"""Which checkpoints a search keeps on disk."""

from collections.abc import Callable
from typing import Any

import pytest

from search.exports.retention import CheckpointRetention, clean
from search.space.locations import trial_folder
from search.study.lock import SearchBusyError, locked
from search.study.record import End
from search.study.storage import open_study
from trainer.evaluation.review import PREDICTIONS, REVIEW

Make = Callable[..., Any]
FILES = ("last.pt", "previous.pt", "best.pt")


def searched(config: Any, make_record: Make, maps: dict[int, float], running: int) -> Any:
    """A search of ended trials with these best APs, and one that runs; each file has 100 bytes."""
    study = open_study(config.folder, config.name)
    records = {n: make_record(n, [0.0, value] * 5, end=End.FINISHED) for n, value in maps.items()}
    study.records = records | {running: make_record(running, [0.01])}
    for number in study.records:
        folder = trial_folder(config.folder, number)
        folder.mkdir(parents=True)
        for name in FILES:
            (folder / name).write_bytes(bytes(100))
    return study


def files_of(config: Any, number: int) -> list[str]:
    return sorted(f.name for f in trial_folder(config.folder, number).iterdir())


def test_the_worst_checkpoints_of_ended_trials_go_above_the_cap(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.disk_cap": 200})
    study = searched(config, make_record, {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}, running=4)
    CheckpointRetention(config, study)()
    assert [files_of(config, n) for n in range(4)] == [[], ["best.pt"], ["best.pt"], []]
    assert files_of(config, 4) == sorted(FILES)


def test_a_worse_checkpoint_goes_when_a_better_trial_has_ended(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.disk_cap": 100})
    study = searched(config, make_record, {0: 0.1}, running=1)
    delete = CheckpointRetention(config, study)
    delete()
    assert [files_of(config, n) for n in range(2)] == [["best.pt"], sorted(FILES)]
    study.records[1] = make_record(1, [0.0, 0.4] * 5, end=End.FINISHED)
    delete()
    assert [files_of(config, n) for n in range(2)] == [[], ["best.pt"]]


def test_the_best_checkpoint_stays_with_any_cap(make_search: Make, make_record: Make) -> None:
    config = make_search({"search.disk_cap": 0})
    study = searched(config, make_record, {0: 0.1, 1: 0.4}, running=2)
    CheckpointRetention(config, study)()
    assert [files_of(config, n) for n in range(2)] == [[], ["best.pt"]]


def test_clean_leaves_the_study_and_the_winner(make_search: Make, make_record: Make) -> None:
    config = make_search()
    study = searched(config, make_record, {0: 0.1, 1: 0.2}, running=2)
    (config.folder / "winner").mkdir()
    (config.folder / "winner" / "model.safetensors").touch()
    (config.folder / "phases" / "a").mkdir(parents=True)
    (config.folder / "phases" / "a" / "last.pt").write_bytes(bytes(50))
    assert clean(config, study) == 650
    remaining = {str(f.relative_to(config.folder)) for f in config.folder.rglob("*") if f.is_file()}
    # the winning checkpoint may have to be exported again
    assert remaining - {"driver.lock"} == {
        "study.journal",
        "winner/model.safetensors",
        "trials/1/best.pt",
        "trials/2/last.pt",
        "trials/2/previous.pt",
    }


def test_bytes_that_forks_share_are_counted_once(make_search: Make, make_record: Make) -> None:
    config = make_search()
    study = searched(config, make_record, {0: 0.1, 1: 0.2}, running=2)
    phase = config.folder / "phases" / "a" / "best.pt"
    phase.parent.mkdir(parents=True)
    phase.hardlink_to(config.folder / "trials" / "0" / "best.pt")
    assert clean(config, study) == 600  # as without it
    assert not phase.exists()


def test_a_search_that_runs_is_not_cleaned(make_search: Make) -> None:
    config = make_search()
    study = open_study(config.folder, config.name)
    with locked(config.folder), pytest.raises(SearchBusyError):
        clean(config, study)


def test_confirmed_trials_stay_with_any_cap(make_search: Make, make_record: Make) -> None:
    config = make_search({"search.disk_cap": 0, "search.confirm": {"top": 2, "seeds": 1}})
    study = searched(config, make_record, {0: 0.6, 1: 0.1, 2: 0.5, 3: 0.4, 4: 0.5}, running=5)
    for number, confirmed in ((3, 0), (4, 2)):  # trial 2 may have the better mean
        study.records[number].confirms = confirmed
    CheckpointRetention(config, study)()
    remaining = [n for n in range(5) if files_of(config, n)]
    assert remaining == [0, 2, 3, 4]


def test_a_stopped_baseline_stays_since_its_fresh_runs_may_win(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.disk_cap": 0, "search.confirm": {"top": 1, "seeds": 1}})
    study = searched(config, make_record, {0: 0.1, 1: 0.2, 2: 0.6, 3: 0.1, 4: 0.7}, running=5)
    study.records[0] = make_record(0, [0.1, 0.1], origin="as written", end=End.PRUNED)
    for number, confirmed in ((3, 2), (4, 0)):
        study.records[number].confirms = confirmed
    for record in study.records.values():
        record.parameters = {"n": record.number}
    CheckpointRetention(config, study)()
    assert [n for n in range(5) if files_of(config, n)] == [0, 2, 3, 4]


def test_a_trial_that_has_not_ended_can_go_on_after_cleaning(
    make_search: Make, make_record: Make
) -> None:
    config = make_search()
    study = searched(config, make_record, {0: 0.1, 1: 0.2}, running=2)
    clean(config, study)
    assert {"last.pt", "previous.pt"} <= set(files_of(config, 2))
    assert "last.pt" not in files_of(config, 1)


def test_only_the_winners_review_stays(make_search: Make, make_record: Make) -> None:
    config = make_search()
    study = searched(config, make_record, {0: 0.1, 1: 0.2}, running=2)
    for number in (0, 1):
        review = trial_folder(config.folder, number) / REVIEW
        review.mkdir()
        (review / PREDICTIONS).write_bytes(bytes(10))
    assert clean(config, study) == 610
    reviews = config.folder.glob(f"trials/*/{REVIEW}/*")
    assert [file.relative_to(config.folder).parts[1] for file in reviews] == ["1"]


def test_what_confirming_runs_take_of_the_cap_is_taken_from_the_best_others(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.disk_cap": 300, "search.confirm": {"top": 1, "seeds": 1}})
    study = searched(config, make_record, {0: 0.6, 1: 0.5, 2: 0.4, 3: 0.1}, running=4)
    study.records[3].confirms = 0  # the worst, and needed
    CheckpointRetention(config, study)()
    assert [n for n in range(4) if files_of(config, n)] == [0, 1, 3]
