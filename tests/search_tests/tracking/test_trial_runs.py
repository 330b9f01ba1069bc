"""MLflow's runs of trials, in a real SQLite store."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from search.study.record import End
from search.study.search_state import SearchState
from search.study.storage import open_study
from search.study.study import Study
from search.tracking.description import flat_metrics
from search.tracking.tracking import MlflowTracking
from search.tracking.trial_runs import run_name
from trainer.evaluation.review import CLASSES, CURVES, MISSES, PREDICTIONS

from .conftest import FOLDER, SECONDS, described, fill_mlflow, history, runs_of

Make = Callable[..., Any]


def test_a_trial_is_a_child_of_its_search_with_a_row_an_epoch(store: str, study: Study) -> None:
    fill_mlflow(store, study, "rows")
    parent, trials = runs_of(store, "rows")
    assert trials.keys() == study.records.keys()
    for number, run in trials.items():
        record = study.records[number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["unfreeze.origin"] == "sampled"
        assert run.data.params == {k: str(v) for k, v in record.parameters.items()}
        assert record.started is not None
        assert run.info.start_time == int(record.started * 1000)
        wanted: dict[str, list[tuple[int, int, float]]] = {}
        for epoch, report in record.reports.items():
            for key, value in flat_metrics(report).items():
                at = int(record.times[epoch] * 1000)
                wanted.setdefault(key, []).append((epoch, at, value))
        assert history(store, run) == wanted


def test_statuses_say_how_a_trial_ended(store: str, study: Study) -> None:
    fill_mlflow(store, study, "statuses")
    _, trials = runs_of(store, "statuses")
    shown = {
        study.records[n].end: (run.info.status, run.data.tags["unfreeze.end"], run.info.end_time)
        for n, run in trials.items()
    }
    ended = {r.end: int(r.ended * 1000) if r.ended else None for r in study.records.values()}
    assert shown == {
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
    fill_mlflow(store, study, "interrupted", lambda: described("KILLED"))
    parent, trials = runs_of(store, "interrupted")
    assert parent.info.status == "KILLED"
    assert trials[6].info.status == "KILLED"
    assert trials[6].data.tags["unfreeze.end"] == "interrupted"


def test_a_continued_trial_runs_again_in_its_old_run(
    store: str, study: Study, make_reports: Make
) -> None:
    study.state = SearchState.INTERRUPTED
    fill_mlflow(store, study, "continued")
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


def test_more_rows_than_a_request_holds_are_all_written(
    store: str, make_search: Make, make_reports: Make
) -> None:
    study = open_study(Path("long"), "long")
    study.id = "long"
    number, _ = study.ask([], make_search())
    for report in make_reports([0.1] * 80):
        study.record(number, report)
    fill_mlflow(store, study, "long")
    _, trials = runs_of(store, "long")
    assert [row[0] for row in history(store, trials[0])["val/map"]] == list(range(1, 81))


def test_a_run_that_somebody_nested_in_the_search_is_ignored(store: str, study: Study) -> None:
    fill_mlflow(store, study, "nested")
    client, (parent, _) = MlflowClient(store), runs_of(store, "nested")
    for trial in ({}, {"unfreeze.trial": "of mine"}):
        tags = {"mlflow.parentRunId": parent.info.run_id, **trial}
        client.create_run(parent.info.experiment_id, tags=tags)
    study.end(6, End.LOST)
    fill_mlflow(store, study, "nested")
    runs = client.search_runs([parent.info.experiment_id])
    ends = {r.data.tags["unfreeze.end"] for r in runs if "unfreeze.end" in r.data.tags}
    assert ends == {end.value for end in End}


def test_a_queued_trial_has_no_run_yet(store: str, study: Study) -> None:
    study.enqueue({"train.unfreeze.lr": 1e-3}, "first")
    fill_mlflow(store, study, "queued")
    assert 7 not in runs_of(store, "queued")[1]


def test_a_finished_trials_review_is_logged_once(store: str, reviewed: Study) -> None:
    for _ in range(2):
        fill_mlflow(store, reviewed, "reviewed")
    client, (_, trials) = MlflowClient(store), runs_of(store, "reviewed")
    logged = {n: {f.path for f in client.list_artifacts(r.info.run_id)} for n, r in trials.items()}
    assert logged.pop(0) == {PREDICTIONS, MISSES, CURVES, CLASSES}
    assert not any(logged.values())
    place = client.download_artifacts(trials[0].info.run_id, CLASSES)
    table = json.loads(Path(place).read_text())
    assert table == {"columns": ["class", "AP"], "data": [["red", 0.5], ["blue", None]]}
    assert CLASSES in trials[0].data.tags["mlflow.loggedArtifacts"]


def test_an_incomplete_file_of_a_killed_driver_is_logged_again(store: str, reviewed: Study) -> None:
    fill_mlflow(store, reviewed, "torn")
    client, (_, trials) = MlflowClient(store), runs_of(store, "torn")
    run = trials[0].info.run_id
    Path(client.download_artifacts(run, PREDICTIONS)).write_bytes(b"pic")
    fill_mlflow(store, reviewed, "torn")
    assert Path(client.download_artifacts(run, PREDICTIONS)).read_bytes() == b"picture"


def test_a_password_in_an_error_is_redacted(
    store: str, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    study.end(6, End.ERROR, "cannot reach http://me:canary@host/x")
    with caplog.at_level(logging.WARNING, logger="search.tracking.tracking"):
        fill_mlflow(store, study, "secret")
    tags = runs_of(store, "secret")[1][6].data.tags
    assert tags["unfreeze.text"] == "cannot reach http://me:***@host/x"


def test_a_run_is_named_after_what_matters(make_record: Make) -> None:
    lr = "train.unfreeze.lr (train.optimizer=sgd)"
    parameters = {"train.unfreeze.depth": 3, lr: 0.0012345, "train.momentum": 0.9}
    assert run_name(make_record(7, [], parameters=parameters)) == "#07 depth 3 lr 1.2e-3"
    assert run_name(make_record(123, [])) == "#123"
    other = {"train.unfreeze.weight_decay": 1e-4, "train.momentum": 0.9, "train.warmup_epochs": 2}
    assert run_name(make_record(4, [], parameters=other)) == "#04 weight_decay 1e-4 momentum 0.9"
    base = make_record(0, [], parameters={"train.unfreeze.depth": 3}, origin="as written")
    assert run_name(base) == "#00 depth 3 (baseline)"
