"""The canvas size that `unfreeze init` chooses."""

import json
import re
import shutil
from pathlib import Path

import pytest

from trainer.config import Data

from ..commands.init_helpers import init_config, resize_pictures


@pytest.fixture
def cells(tiny_data: Data, tmp_path: Path) -> Path:
    """A copy of the tiny data set."""
    return Path(shutil.copytree(tiny_data.train.parent, tmp_path / "cells"))


@pytest.mark.parametrize(
    ("side", "size", "message"),
    [
        (12, 352, "image_size is 352: on 320 px 12 of 21 objects would have a side under 2 pixels"),
        (5, 800, "a step takes about 6.2 times as long"),
        (3, 320, "on a canvas of 320 px 12 of 21 objects .* 1334 px, .* too slow .* into tiles"),
        (13, 320, ""),
    ],
)
def test_the_canvas_shows_the_objects_or_a_line_says_why_not(
    cells: Path, side: int, size: int, message: str
) -> None:
    resize_pictures(cells, (2000, 30), side)
    config, said = init_config(cells)
    assert config.model.image_size == size
    about = [line for line in said if "pixels" in line]
    assert len(about) == bool(message)
    assert all(re.search(message, line) for line in about)
    assert not any("box-vanishing" in line for line in said)


def test_a_few_vanishing_objects_are_named_and_change_nothing(cells: Path) -> None:
    resize_pictures(cells, (700, 400), 9, count=20)
    content = json.loads((cells / "train.json").read_text())
    content["annotations"][0]["bbox"] = [0, 0, 9, 4]
    (cells / "train.json").write_text(json.dumps(content))
    config, said = init_config(cells)
    assert config.model.image_size == 320
    assert [line for line in said if "pixels" in line] == [
        "on a canvas of 320 px 1 of 249 objects have a side under 2 pixels: too few to pay for a "
        "larger one"
    ]
