"""The winner as `models:/NAME`: registered once, champion only if it is better, and served."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from search.reporting.progress import Quiet
from search.running import conclude
from search.tracking import registry
from search.tracking.registry import VAL, VAL_AP, is_better, register
from trainer.config import Data, InputError
from trainer.data.dataset import Splits

from ..conftest import Trained

Tags = dict[str, str]


def tags(ap: float, val: str = "a") -> Tags:
    return {VAL: val, VAL_AP: str(ap)}


def test_only_a_better_ap_on_the_same_val_is_better() -> None:
    assert is_better(tags(0.6), tags(0.5))
    assert not is_better(tags(0.5), tags(0.5))
    assert not is_better(tags(0.6, "b"), tags(0.5))
    assert not is_better(tags(0.6), {})


# -- versions -------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports without an ONNX conversion, which takes half a minute."""

    def make(source: Path, format: str, folder: Path, pictures: Any) -> None:
        (folder / "model.onnx").write_bytes(b"")
        (folder / "spec.json").write_text("{}")

    monkeypatch.setattr(registry, "export_portable", make)
    monkeypatch.setattr(registry, "save_model", lambda path, **_: path.mkdir())


@pytest.mark.usefixtures("made")
def test_a_winner_is_registered_once_and_the_better_one_is_champion(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.create_experiment("cells", (tmp_path / "artifacts").as_uri())

    def register_one(search: str, ap: float, val: str = "a") -> str:
        figures = {"of": {"trial": 1, "epoch": 2}, "val": {"data": val, "figures": {"map": ap}}}
        return register(uri, "cells", search, Path("winner"), figures, ())

    assert register_one("one", 0.5) == "models:/cells version 1, now its champion"
    assert register_one("one", 0.5) == "models:/cells version 1, its champion"
    assert register_one("two", 0.4) == (
        "models:/cells version 2; its champion stays version 1 (AP 0.500)"
    )
    assert register_one("three", 0.9, "b") == (
        "models:/cells version 3; its champion stays version 1 (measured on another val)"
    )
    assert register_one("four", 0.6) == "models:/cells version 4, now its champion"
    assert int(client.get_model_version_by_alias("cells", "champion").version) == 4
    assert len(client.search_model_versions("name = 'cells'")) == 4


@pytest.mark.parametrize(
    "error", [InputError(["it cannot be exported"]), ConnectionError("refused\nmore")]
)
def test_a_registry_that_refuses_is_a_warning_and_no_failure(
    error: Exception,
    trained: Trained,
    tiny: Splits,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: Any) -> str:
        raise error

    monkeypatch.setattr(conclude, "register", refuse)
    config = trained.config.model_copy(update={"register_model": True})
    study: Any = SimpleNamespace(id="id")
    conclude._register(config, tiny, study, trained.result.metrics, Quiet())
    (line,) = [r.getMessage() for r in caplog.records if "MLflow" in r.getMessage()]
    assert line.startswith("MLflow did not get the model (") and "more" not in line


# -- serving --------------------------------------------------------------------------------------


@pytest.fixture
def address(trained: Trained, tiny: Splits, tmp_path: Path) -> Iterator[str]:
    """The address of `mlflow models serve` on a champion."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MlflowClient(uri).create_experiment("once", (tmp_path / "artifacts").as_uri())
    metrics = trained.result.metrics
    register(uri, "once", "id", trained.winner, metrics, tiny.val.pictures)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/once@champion"]
    line += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    uvicorn = tmp_path / "bin" / "uvicorn"  # MLflow takes the first on the PATH: this Python's
    uvicorn.parent.mkdir()
    uvicorn.write_text(f'#!/bin/sh\nexec {sys.executable} -m uvicorn "$@"\n')
    uvicorn.chmod(0o755)
    path = f"{uvicorn.parent}:{os.environ['PATH']}"
    log = (tmp_path / "serve.log").open("w")
    server = subprocess.Popen(
        line, env={**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri}, stdout=log, stderr=log
    )
    try:
        wait(f"http://127.0.0.1:{port}/ping", server, lambda: (tmp_path / "serve.log").read_text())
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def wait(url: str, server: "subprocess.Popen[bytes]", said: Callable[[], str]) -> None:
    deadline = time.monotonic() + 200
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"it does not serve:\n{said()[-2000:]}")


@pytest.mark.slow  # an ONNX export, and a server that takes its time to start
def test_mlflow_serves_the_champion(address: str, trained: Trained, tiny_data: Data) -> None:
    picture = (tiny_data.train.parent / "images" / "val-00.png").read_bytes()
    rows = [[base64.b64encode(picture).decode()]] * 2
    body = {"dataframe_split": {"columns": ["picture"], "data": rows}}
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer = json.load(urllib.request.urlopen(request, timeout=60))["predictions"]
    assert len(answer) == 2 and answer[0] == answer[1]
    for box in answer[0]:
        assert box.keys() == {"name", "category_id", "score", "bbox"}
        assert (box["name"], box["category_id"]) in {("red", 3), ("blue", 7)}
        x, y, width, height = box["bbox"]
        assert 0 <= x <= x + width <= 96.001 and 0 <= y <= y + height <= 72.001
