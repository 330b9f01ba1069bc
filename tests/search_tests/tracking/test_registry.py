"""The winner as `models:/NAME`: once, the champion moved only by a better one, and served."""

import base64
import io
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
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image, ImageCms

from search.running import driver
from search.tracking import pyfunc as served
from search.tracking import registry
from search.tracking.registry import VAL, VAL_AP, is_better, register
from trainer.config import BadInput, Data
from trainer.data import pixels
from trainer.data.canvas import to_canvas
from trainer.data.dataset import Splits
from trainer.data.pixels import to_rgb

from ..conftest import Trained

Tags = dict[str, str]


def tags(ap: float, val: str = "a") -> Tags:
    return {VAL: val, VAL_AP: str(ap)}


def test_only_a_better_ap_on_the_same_val_is_better() -> None:
    assert is_better(tags(0.6), tags(0.5))
    assert not is_better(tags(0.5), tags(0.5))
    assert not is_better(tags(0.6, "b"), tags(0.5))
    assert not is_better(tags(0.6), {})


@pytest.mark.parametrize("size", [(96, 72), (31, 200), (640, 3)])
def test_the_served_canvas_is_the_trainers(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    canvas, scale = served._on_canvas(picture, 96)
    expected = to_canvas(picture, 96)
    assert (canvas == expected.pixels).all()
    assert scale.tolist() == [*expected.scale, *expected.scale]


def test_what_is_transparent_is_served_as_it_was_trained() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    opened = np.asarray(served._opened(stream.getvalue(), 0), dtype=int)
    trained = np.asarray(to_rgb(Image.fromarray(pixels)), dtype=int)
    assert np.abs(opened - trained).max() <= 1


def test_deep_pixels_are_refused_by_what_is_served() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((9, 7), 999, np.uint16)).save(stream, "PNG")
    with pytest.raises(MlflowException, match="more than 8 bits a channel"):
        served._opened(stream.getvalue(), 0)


def test_what_is_served_says_that_it_is_no_picture() -> None:
    with pytest.raises(MlflowException, match="row 2: no readable picture .no kind that is known"):
        served._opened(b"text", 2)


def picture_bytes(size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("1", size).save(stream, "PNG")
    return stream.getvalue()


def test_a_request_has_no_more_rows_and_pixels_than_memory_bears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    huge = picture_bytes((10_000, 5_001))  # 7 kB
    with pytest.raises(MlflowException, match="row 3: .*50010000 pixels .legal: at most 50000000"):
        served._opened(huge, 3)
    monkeypatch.setattr(served, "MOST_PIXELS", 12)
    assert served._opened(picture_bytes((4, 3)), 0).size == (4, 3)
    with pytest.raises(MlflowException, match="pixels"):
        served._opened(picture_bytes((13, 1)), 0)
    monkeypatch.setattr(served, "MOST_BYTES", 9)
    with pytest.raises(MlflowException, match="bytes .legal: at most 9"):
        served._opened(picture_bytes((4, 3)), 0)
    rows = pd.DataFrame({"picture": [b""] * (served.MOST_ROWS + 1)})
    with pytest.raises(MlflowException, match="65 rows .legal: 1 to 64"):
        served.Served().predict(cast(Any, None), rows)


# -- versions -------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports that take no half minute: an MLflow model is files, whatever they hold."""

    def make(source: Path, format: str, folder: Path, pictures: Any) -> None:
        (folder / "model.onnx").write_bytes(b"")
        (folder / "spec.json").write_text("{}")

    monkeypatch.setattr(registry, "make_portable", make)
    monkeypatch.setattr(registry, "save_model", lambda path, **_: path.mkdir())


@pytest.mark.usefixtures("made")
def test_a_winner_is_registered_once_and_the_better_one_is_champion(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    client.create_experiment("cells", (tmp_path / "artifacts").as_uri())

    said: list[str] = []

    def tell(search: str, ap: float, val: str = "a") -> str:
        figures = {"of": {"trial": 1, "epoch": 2}, "val": {"data": val, "figures": {"map": ap}}}
        return register(uri, "cells", search, Path("winner"), figures, (), said.append)

    assert tell("one", 0.5) == "models:/cells version 1, now its champion"
    assert tell("one", 0.5) == "models:/cells version 1, its champion"
    assert tell("two", 0.4) == ("models:/cells version 2; its champion stays version 1 (AP 0.500)")
    assert tell("three", 0.9, "b") == (
        "models:/cells version 3; its champion stays version 1 (measured on another val)"
    )
    assert tell("four", 0.6) == "models:/cells version 4, now its champion"
    assert client.get_model_version_by_alias("cells", "champion").version == 4
    assert len(client.search_model_versions("name = 'cells'")) == 4
    assert said == 4 * ["writing it as ONNX for MLflow's registry"]


@pytest.mark.parametrize(
    "error", [BadInput(["it cannot be exported"]), ConnectionError("refused\nmore")]
)
def test_a_registry_that_refuses_is_a_line_and_no_failure(
    error: Exception,
    trained: Trained,
    tiny: Splits,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: Any) -> str:
        raise error

    monkeypatch.setattr(driver, "register", refuse)
    config = trained.config.model_copy(update={"register_model": True})
    study: Any = SimpleNamespace(get=lambda key: "id")
    driver._register(config, tiny, study, trained.result.metrics, driver.Quiet())
    (line,) = [r.getMessage() for r in caplog.records if "MLflow" in r.getMessage()]
    assert line.startswith("MLflow did not get the model (") and "more" not in line


# -- serving --------------------------------------------------------------------------------------


@pytest.fixture
def address(trained: Trained, tiny: Splits, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` on the champion of a winner whose every box counts."""
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


def test_bytes_that_training_would_not_read_are_not_served() -> None:
    with pytest.raises(MlflowException, match="no kind that is known"):
        served._opened(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", 0)
    assert served.FORMATS == pixels.FORMATS


def test_broken_exif_is_served_as_it_was_trained() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 4)).save(stream, "JPEG", exif=b"Exif\0\0nonsense")
    assert served._opened(stream.getvalue(), 0).size == (8, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_served_as_it_was_trained(orientation: int) -> None:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (8, 4))
    picture.paste("red", (0, 0, 3, 2))
    picture.save(stream, "TIFF", exif=exif)
    ours, theirs = served._opened(stream.getvalue(), 0), to_rgb(Image.open(stream))
    assert (ours.size, ours.tobytes()) == (theirs.size, theirs.tobytes())


@pytest.mark.parametrize("profile", ["sRGB", "LAB", None])
def test_cmyk_is_served_as_it_was_trained(profile: str | None) -> None:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile(profile)) if profile else None
    stream = io.BytesIO()
    picture = Image.new("CMYK", (8, 4), (200, 30, 90, 10))
    picture.save(stream, "JPEG", icc_profile=made.tobytes() if made else None)
    opened = served._opened(stream.getvalue(), 0)
    assert opened.tobytes() == to_rgb(Image.open(stream)).tobytes()
