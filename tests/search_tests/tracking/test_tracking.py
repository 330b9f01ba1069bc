"""Tracking in a thread: outages, refused files, and tracking switched off."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from search.study.record import End
from search.study.study import Study
from search.tracking import tracking
from search.tracking.tracking import MlflowTracking, NoTracking

from .conftest import FOLDER, SECONDS, described, runs_of


def until(holds: Callable[[], bool]) -> None:
    """Wait for the tracker's thread."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_dead_server_neither_raises_nor_blocks_and_is_logged_once(
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
    lines = [r.getMessage() for r in caplog.records if "MLflow did not take our rows" in r.message]
    assert len(lines) == 1
    assert "the search continues" in lines[0]


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


def test_refused_files_hold_up_nothing_else(
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
        """Whether the runs of the search and of all trials but the running one have ended."""
        experiment = client.get_experiment_by_name("refused")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return len([run for run in runs if run.info.status != "RUNNING"]) == 1 + len(End)

    until(ended)
    assert tracker.close(30) is False  # long before: refused files are given up
    assert not tracker._thread.is_alive()
    assert tracker.lacks == (
        "MLflow lacks files of 2 runs, which its artifact store did not take (OSError: no "
        "artifacts here); they are in kept all the same. The same command logs them once it "
        "takes files"
    )
    parent, trials = runs_of(store, "refused")
    assert parent.info.status == "FINISHED"
    assert trials.keys() == reviewed.records.keys()
    assert trials[5].info.status == "FAILED"
