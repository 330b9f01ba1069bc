"""Fixtures for all tests: no network, one thread, an empty cache folder, and a tiny data set."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub is imported

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config import Data, TrainConfig
from trainer.config_errors import parse
from trainer.config_fields import set_field
from trainer.data.dataset import Category, Picture, Split, Splits
from trainer.data.loading import load
from trainer.model.backbones import Backbone, build

WIDTH, HEIGHT = 96, 72
CATEGORIES = (Category(3, "red"), Category(7, "blue"))
COLOURS = {3: (220, 40, 30), 7: (30, 60, 230)}
TINY = {
    "model": {"weights": "none", "image_size": 96},
    "train": {
        "precision": "fp32",
        "trunk_cache": "off",
        "head": {"epochs": 2, "batch_size": 4, "lr": 5e-4},
        "unfreeze": {"epochs": 3, "batch_size": 4, "lr": 5e-4, "open_epochs": 2},
    },
}


LONGEST = (
    "test_end_to_end.py",
    "test_export_model.py",
    "test_training.py",
    "test_fit.py",
    "test_trial_state.py",
)
"""Files that take minutes. They run first, so that no core is idle at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    """12 pictures of train and 6 of val, each with one or two coloured rectangles.

    The teardown checks that no test has changed a file.
    """
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "images").mkdir()
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        images: list[Any] = []
        annotations: list[Any] = []
        for i in range(count):
            pixels = draw.integers(90, 170, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            for _ in range(1 + i % 2):
                category = int(draw.choice([3, 7]))
                w, h = (int(v) for v in draw.integers(16, 40, 2))
                x, y = int(draw.integers(0, WIDTH - w)), int(draw.integers(0, HEIGHT - h))
                pixels[y : y + h, x : x + w] = COLOURS[category]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": 100 + i,
                        "category_id": category,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                    }
                )
            name = f"{split}-{i:02}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            images.append({"id": 100 + i, "file_name": name, "width": WIDTH, "height": HEIGHT})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES],
        }
        (folder / f"{split}.json").write_text(json.dumps(content))
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    yield Data(train=folder / "train.json", val=folder / "val.json")
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before


@pytest.fixture(scope="session")
def tiny(tiny_data: Data, tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return load(tiny_data, tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., TrainConfig]:
    """Makes a config of two head epochs and three unfreeze epochs, with changes by dotted path."""

    def make(changes: dict[str, Any] | None = None) -> TrainConfig:
        raw = json.loads(json.dumps(TINY))
        for path, value in (changes or {}).items():
            set_field(raw, path, value)
        return parse(TrainConfig, raw)

    return make


@pytest.fixture(scope="session")
def without_tensors() -> Callable[[str], Backbone]:
    """Builds each backbone once by its name, on the meta device."""

    @cache
    def make(name: str) -> Backbone:
        with torch.device("meta"):
            return build(name, "none")

    return make


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., Picture]:
    """Makes a picture; `boxes` are (label, x, y, width, height), `crowd` are positions in it."""

    def make(
        id: int = 1,
        boxes: list[tuple[float, ...]] | None = None,
        *,
        size: tuple[int, int] = (WIDTH, HEIGHT),
        crowd: tuple[int, ...] = (),
        file: Path = Path("nowhere.png"),
    ) -> Picture:
        rows = np.array(boxes or [], dtype=np.float64).reshape(-1, 5)
        content = file.read_bytes() if file.is_file() else str(id).encode()
        return Picture(
            id=id,
            file=file,
            width=size[0],
            height=size[1],
            sha256=hashlib.sha256(content).hexdigest(),
            boxes=rows[:, 1:],
            areas=rows[:, 3:].prod(axis=1),
            labels=rows[:, 0].astype(np.int64),
            crowd=np.isin(np.arange(len(rows)), crowd),
        )

    return make


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    """Makes a split with the categories red (3) and blue (7)."""

    def make(*pictures: Picture, name: str = "train") -> Split:
        return Split(name, pictures, CATEGORIES)

    return make


@pytest.fixture(scope="session")
def run_two_at_once() -> Callable[..., list[str]]:
    """Runs a Python script in two processes at once; returns what each prints.

    The script prints "ready", and then waits for a line on stdin.
    """

    def run(script: str, *arguments: object) -> list[str]:
        line = [sys.executable, "-c", script, *map(str, arguments)]
        pipe = subprocess.PIPE
        both = [subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
        try:
            for process in both:
                assert process.stdout and process.stdout.readline() == "ready\n"
            for process in both:
                assert process.stdin
                process.stdin.write("go\n")
                process.stdin.flush()
            printed = [process.communicate(timeout=120)[0] for process in both]
        finally:
            for process in both:
                process.kill()
        assert [process.returncode for process in both] == [0, 0]
        return printed

    return run
