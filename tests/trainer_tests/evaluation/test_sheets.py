"""Sheets show complete pictures with their boxes in place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from trainer.evaluation.drawing import Box
from trainer.evaluation.sheets import TILE, TITLE, make_pair, make_sheet

Make = Callable[..., Any]


@pytest.mark.parametrize("size", [(96, 72), (400, 300), (900, 20)])
def test_a_pair_shows_complete_pictures_with_boxes_in_their_places(
    make_picture: Make, make_split: Make, tmp_path: Path, size: tuple[int, int]
) -> None:
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 2 :, width // 2 :] = (0, 200, 0)  # the last quarter alone
    Image.fromarray(pixels).save(tmp_path / "quarter.png")
    corner = (width / 2, height / 2, width / 2, height / 2)
    picture = make_picture(1, [(1, *corner)], size=size, file=tmp_path / "quarter.png")
    split = make_split(picture)
    boxes = {1: [Box(split.categories[0], 0.9, corner)]}
    pair = np.asarray(make_pair(split, picture, boxes, ""))[TITLE:].astype(int)
    across, down = TILE, max(1, round(height * TILE / width))
    assert pair.shape[:2] == (down, 2 * across + 2)
    for left in (0, across + 2):
        half = pair[:, left : left + across]
        green = (half == (0, 200, 0)).all(axis=2)
        assert not green[:, : across // 2 - 1].any() and not green[: down // 2 - 1].any()
        if down > 60:  # else its box and name cover it
            assert green[down * 3 // 4, across * 3 // 4]
        drawn = ~green & half.any(axis=2)  # the box, at the picture's lower right corner
        assert drawn[-1, -1] and not drawn[0, 0]


def test_pictures_of_one_name_have_their_folders(
    make_picture: Make, make_split: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, at, text, **_: written.append(text)
    )
    for name in ("a/x.png", "b/x.png", "b/y\x1b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (96, 72)).save(tmp_path / name)
    names = ("a/x.png", "b/x.png", "b/y\x1b.png")
    split = make_split(*(make_picture(i, file=tmp_path / name) for i, name in enumerate(names)))
    make_sheet(split, split.pictures, {}, {})
    assert [t for t in written if t.endswith("truth")] == [
        "a/x.png: truth",
        "b/x.png: truth",
        r"y\x1b.png: truth",
    ]
