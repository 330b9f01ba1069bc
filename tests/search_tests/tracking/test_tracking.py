"""MLflow as a mirror of the study, against a real SQLite store."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from search.space.space import read_space
from search.study.facts import SearchState
from search.study.record import End
from search.study.storage import open_study
from search.study.study import Study
from search.tracking import tracking
from search.tracking.description import DataInput, Description, flat_metrics
from search.tracking.tracking import MlflowTracking, NoTracking
from trainer.evaluation.review import CLASSES, CURVES, MISSES, PREDICTIONS, REVIEW

from ..conftest import SPACE

Make = Callable[..., Any]
SECONDS = 60.0
FOLDER = Path("kept")
"""Of the search, in each test's own."""


def described(status: str = "FINISHED") -> Description:
    return Description(
        status=status,
        params={"backbone": "tf_efficientnet_lite0"},
        tags={"unfreeze.state": "done"},
        metrics={"best_map": 0.5},
        texts={"table.md": "| a |\n"},
        inputs=(
            DataInput(split="val", name="d val", digest="ab" * 32, source="d", pictures=6, boxes=9),
        ),
    )


@pytest.fixture
def study(make_search: Make, make_reports: Make) -> Study:
    """A trial of every end, and one that runs."""
    study = open_study(FOLDER, "tiny", trials=9)
    study.id = "id of this search"
    study.state = SearchState.RUNNING
    for number, end in enumerate((*End, None)):
        study.ask(read_space(SPACE), make_search())
        for report in make_reports([0.1, 0.2 + number / 100, 0.1]):
            study.record(number, report)
        if end is not None:
            study.end(number, end, "Traceback\nKeyError: 1" if end is End.ERROR else "")
    return study


def mirror(store: str, study: Study, name: str, describe: Any = described) -> None:
    tracker = MlflowTracking(store, study, name, FOLDER, describe)
    assert tracker.close(SECONDS)
    assert not tracker.lacks


def until(holds: Callable[[], bool]) -> None:
    """Wait for the tracker's thread."""
    late = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < late
        time.sleep(0.05)


def runs_of(store: str, name: str) -> tuple[Run, dict[int, Run]]:
    """The search's run and the trials' by number; there are no others."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    trials = {
        int(r.data.tags["unfreeze.trial"]): r for r in runs if "unfreeze.trial" in r.data.tags
    }
    (parent,) = [r for r in runs if r.data.tags.get("unfreeze.kind") == "search"]
    assert len(runs) == 1 + len(trials)
    return parent, trials


def history(store: str, run: Run) -> dict[str, list[tuple[int, int, float]]]:
    """Every row of every metric of a run: step, timestamp, value."""
    client = MlflowClient(store)
    return {
        key: [
            (m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, key)
        ]
        for key in run.data.metrics
    }


def everything(store: str, run: Run) -> Any:
    """All of a run but the moment at which it ended, which a replay knows up to a blink."""
    info = run.info
    told = (info.run_id, info.run_name, info.status, info.start_time, run.data.params)
    return told, run.data.tags, history(store, run)


def test_a_trial_is_a_child_of_its_search_with_a_row_an_epoch(store: str, study: Study) -> None:
    mirror(store, study, "rows")
    parent, trials = runs_of(store, "rows")
    assert trials.keys() == study.records.keys()
    for number, run in trials.items():
        record = study.records[number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["unfreeze.origin"] == "sampled"
        assert run.data.params == {k: str(v) for k, v in record.parameters.items()}
        assert run.info.start_time == int(record.started * 1000)
        wanted: dict[str, list[tuple[int, int, float]]] = {}
        for epoch, report in record.reports.items():
            for key, value in flat_metrics(report).items():
                at = int(record.times[epoch] * 1000)
                wanted.setdefault(key, []).append((epoch, at, value))
        assert history(store, run) == wanted


def test_statuses_say_how_a_trial_ended(store: str, study: Study) -> None:
    mirror(store, study, "statuses")
    _, trials = runs_of(store, "statuses")
    told = {
        study.records[n].end: (run.info.status, run.data.tags["unfreeze.end"], run.info.end_time)
        for n, run in trials.items()
    }
    ended = {r.end: int(r.ended * 1000) if r.ended else None for r in study.records.values()}
    assert told == {
        End.FINISHED: ("FINISHED", "finished", ended[End.FINISHED]),
        End.PRUNED: ("KILLED", "pruned", ended[End.PRUNED]),
        End.DIVERGED: ("FAILED", "diverged", ended[End.DIVERGED]),
        End.OUT_OF_MEMORY: ("FAILED", "out of memory", ended[End.OUT_OF_MEMORY]),
        End.ERROR: ("FAILED", "error", ended[End.ERROR]),
        End.LOST: ("FAILED", "lost", ended[End.LOST]),
        None: ("RUNNING", "running", None),
    }
    texts = [run.data.tags.get("unfreeze.text") for run in trials.values()]
    assert [text for text in texts if text] == ["Traceback\nKeyError: 1"]


def test_nothing_is_left_running_after_an_interruption(store: str, study: Study) -> None:
    study.state = SearchState.INTERRUPTED
    mirror(store, study, "interrupted", lambda: described("KILLED"))
    parent, trials = runs_of(store, "interrupted")
    assert parent.info.status == "KILLED"
    assert trials[6].info.status == "KILLED"
    assert trials[6].data.tags["unfreeze.end"] == "interrupted"


def test_a_continued_trial_runs_again_in_its_old_run(
    store: str, study: Study, make_reports: Make
) -> None:
    study.state = SearchState.INTERRUPTED
    mirror(store, study, "continued")
    _, before = runs_of(store, "continued")
    study.state = SearchState.RUNNING
    tracker = MlflowTracking(store, study, "continued", FOLDER, lambda: described("RUNNING"))
    study.record(6, make_reports([0.1, 0.2, 0.1, 0.4])[3])
    study.end(6, End.FINISHED)
    tracker.wake(6)
    assert tracker.close(SECONDS)
    parent, after = runs_of(store, "continued")
    assert parent.info.status == "RUNNING"
    assert after[6].info.run_id == before[6].info.run_id
    assert after[6].info.status == "FINISHED"
    assert [row[0] for row in history(store, after[6])["val/map"]] == [1, 2, 3, 4]


def test_a_replay_writes_no_row_of_a_trial_twice(store: str, study: Study) -> None:
    study.end(6, End.LOST)
    mirror(store, study, "replay")
    before = {n: everything(store, run) for n, run in runs_of(store, "replay")[1].items()}
    mirror(store, open_study(FOLDER, "tiny", trials=9), "replay")
    assert {n: everything(store, run) for n, run in runs_of(store, "replay")[1].items()} == before


def test_a_replay_writes_no_row_of_the_search_twice(store: str, study: Study) -> None:
    mirror(store, study, "parent")
    before = everything(store, runs_of(store, "parent")[0])
    mirror(store, open_study(FOLDER, "tiny", trials=9), "parent")
    assert everything(store, runs_of(store, "parent")[0]) == before


def test_a_replay_into_an_empty_store_writes_the_same_rows(store: str, study: Study) -> None:
    study.end(6, End.PRUNED)
    mirror(store, study, "first place")
    again = open_study(FOLDER, "tiny", trials=9)
    mirror(store, again, "second place")
    first, second = runs_of(store, "first place")[1], runs_of(store, "second place")[1]
    for number, run in first.items():
        assert history(store, second[number]) == history(store, run)
        assert second[number].data.params == run.data.params
        # a clock within Optuna stamps start and end a moment apart from ours
        for stamp in ("start_time", "end_time"):
            ours = getattr(run.info, stamp)
            assert getattr(second[number].info, stamp) == pytest.approx(ours, abs=500)


def test_the_search_itself_has_params_tags_figures_and_texts(store: str, study: Study) -> None:
    mirror(store, study, "itself")
    parent, _ = runs_of(store, "itself")
    assert parent.info.run_name == "itself"
    assert parent.data.params == {"backbone": "tf_efficientnet_lite0"}
    assert parent.data.tags["unfreeze.state"] == "done"
    assert parent.data.metrics == {"best_map": 0.5}
    client = MlflowClient(store)
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["table.md"]


def test_more_rows_than_a_request_holds_are_all_written(
    store: str, make_search: Make, make_reports: Make
) -> None:
    study = open_study(Path("long"), "long")
    study.id = "long"
    number, _ = study.ask([], make_search())
    for report in make_reports([0.1] * 80):
        study.record(number, report)
    mirror(store, study, "long")
    _, trials = runs_of(store, "long")
    assert [row[0] for row in history(store, trials[0])["val/map"]] == list(range(1, 81))


def test_into_a_deleted_experiment_rows_go_all_the_same(store: str, study: Study) -> None:
    mirror(store, study, "deleted")
    client = MlflowClient(store)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    mirror(store, study, "deleted")
    assert len(runs_of(store, "deleted")[1]) == len(study.records)


def test_a_run_that_somebody_nested_in_the_searchs_is_none_of_its_trials(
    store: str, study: Study
) -> None:
    mirror(store, study, "nested")
    client, (parent, _) = MlflowClient(store), runs_of(store, "nested")
    for trial in ({}, {"unfreeze.trial": "of mine"}):
        tags = {"mlflow.parentRunId": parent.info.run_id, **trial}
        client.create_run(parent.info.experiment_id, tags=tags)
    study.end(6, End.LOST)
    mirror(store, study, "nested")
    runs = client.search_runs([parent.info.experiment_id])
    told = {r.data.tags["unfreeze.end"] for r in runs if "unfreeze.end" in r.data.tags}
    assert told == {end.value for end in End}


def test_a_trial_that_waits_has_no_run_yet(store: str, study: Study) -> None:
    study.enqueue({"train.unfreeze.lr": 1e-3}, "first")
    mirror(store, study, "waiting")
    assert 7 not in runs_of(store, "waiting")[1]


def test_a_dead_server_neither_raises_nor_blocks_and_is_told_once(
    study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.05)
    tries: list[Any] = []
    fill = MlflowTracking._fill

    def counted(self: MlflowTracking, *item: Any) -> None:
        tries.append(item)
        fill(self, *item)

    monkeypatch.setattr(MlflowTracking, "_fill", counted)
    with caplog.at_level(logging.WARNING, logger="search.tracking.tracking"):
        started = time.monotonic()
        tracker = MlflowTracking("http://127.0.0.1:1", study, "dead", FOLDER, described)
        for number in study.records:
            tracker.wake(number)
        assert time.monotonic() - started < 5
        until(lambda: len(tries) > 2)
        started = time.monotonic()
        assert tracker.close(0.1) is False
        assert time.monotonic() - started < 5
    assert tracker.lacks.startswith("MLflow lacks some rows still, http://127.0.0.1:1 did not take")
    told = [r.getMessage() for r in caplog.records if "MLflow does not take our rows" in r.message]
    assert len(told) == 1
    assert "the search goes on" in told[0]


def test_a_database_that_cannot_be_opened_does_not_raise(study: Study) -> None:
    tracker = MlflowTracking("sqlite:////proc/no/mlflow.db", study, "dead", FOLDER, described)
    assert tracker.close(0.1) is False


def test_tracking_can_be_off() -> None:
    tracker = NoTracking()
    tracker.wake(0)
    tracker.wake(None)
    assert tracker.close(0)
    assert not tracker.lacks


# -- files ---------------------------------------------------------------------------------------


@pytest.fixture
def reviewed(study: Study) -> Study:
    """The same, whose finished trial left a review."""
    place = FOLDER / "trials" / "0" / REVIEW
    place.mkdir(parents=True)
    for name in (PREDICTIONS, MISSES, CURVES):
        (place / name).write_bytes(b"picture")
    (place / ".part").write_bytes(b"half")
    table = {"columns": ["class", "AP"], "data": [["red", 0.5], ["blue", None]]}
    (place / CLASSES).write_text(json.dumps(table))
    return study


def test_a_finished_trials_review_is_logged_once(store: str, reviewed: Study) -> None:
    for _ in range(2):
        mirror(store, reviewed, "reviewed")
    client, (_, trials) = MlflowClient(store), runs_of(store, "reviewed")
    logged = {n: {f.path for f in client.list_artifacts(r.info.run_id)} for n, r in trials.items()}
    assert logged.pop(0) == {PREDICTIONS, MISSES, CURVES, CLASSES}
    assert not any(logged.values())
    place = client.download_artifacts(trials[0].info.run_id, CLASSES)
    table = json.loads(Path(place).read_text())
    assert table == {"columns": ["class", "AP"], "data": [["red", 0.5], ["blue", None]]}
    assert CLASSES in trials[0].data.tags["mlflow.loggedArtifacts"]


def test_what_is_never_taken_holds_up_nothing_else(
    store: str, reviewed: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no artifacts here")

    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    monkeypatch.setattr(MlflowClient, "log_text", refuse)
    tracker = MlflowTracking(store, reviewed, "refused", FOLDER, described)
    client = MlflowClient(store)

    def ended() -> bool:
        """Whether the search has a run that is over, and all trials have but the one that runs."""
        experiment = client.get_experiment_by_name("refused")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return sum(run.info.status != "RUNNING" for run in runs) == 1 + len(End)

    until(ended)
    assert tracker.close(30) is False  # long before that: what is refused is given up
    assert not tracker._thread.is_alive()
    assert tracker.lacks == (
        "MLflow lacks files of 2 runs, which its artifact store did not take (OSError: no "
        "artifacts here); they are in kept all the same. The same line logs them once it takes "
        "files"
    )
    parent, trials = runs_of(store, "refused")
    assert parent.info.status == "FINISHED"
    assert trials.keys() == reviewed.records.keys()
    assert trials[5].info.status == "FAILED"


def test_a_file_of_which_a_killed_driver_wrote_half_is_logged_again(
    store: str, reviewed: Study
) -> None:
    mirror(store, reviewed, "torn")
    client, (_, trials) = MlflowClient(store), runs_of(store, "torn")
    run = trials[0].info.run_id
    Path(client.download_artifacts(run, PREDICTIONS)).write_bytes(b"pic")
    mirror(store, reviewed, "torn")
    assert Path(client.download_artifacts(run, PREDICTIONS)).read_bytes() == b"picture"


def test_a_search_shows_its_data_and_files(store: str, study: Study, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>")
    mirror(store, study, "shown", lambda: replace(described(), files=(page,)))
    parent, _ = runs_of(store, "shown")
    files = MlflowClient(store).list_artifacts(parent.info.run_id)
    assert {f.path for f in files} == {"table.md", "report.html"}
    (given,) = parent.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("d val", "abababababab")
    assert json.loads(given.dataset.profile) == {"num_rows": 6, "boxes": 9}
    mirror(store, study, "shown")
    assert len(runs_of(store, "shown")[0].inputs.dataset_inputs) == 1


def test_a_password_in_an_error_is_not_told(
    store: str, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    study.end(6, End.ERROR, "cannot reach http://me:canary@host/x")
    with caplog.at_level(logging.WARNING, logger="search.tracking.tracking"):
        mirror(store, study, "secret")
    tags = runs_of(store, "secret")[1][6].data.tags
    assert tags["unfreeze.text"] == "cannot reach http://me:***@host/x"
