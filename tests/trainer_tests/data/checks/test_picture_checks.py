"""Pictures against what is declared of them, and boxes that rotate with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from trainer.config import Data
from trainer.data.canvas import open_picture
from trainer.data.checks.decoding import inspect
from trainer.data.checks.examine import examine
from trainer.data.checks.picture_checks import rotated
from trainer.data.loading import load_split

from ..spoilt_sets import (
    E3,
    Spoil,
    both,
    check_error,
    check_no_error,
    exif,
    picture,
    saved,
    with_box,
    with_image,
)

ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
    ("B9", "picture-tiny", both(saved(picture("b", (40, 9))), with_image(height=9)), E3),
    ("B11", "size-unturned", saved(picture("b"), exif=exif(6)), E3),
    ("B12", "size-wrong", with_image(width=80, height=60), E3),
    (
        "B12 swapped",
        "size-wrong",
        with_image(width=30, height=40),
        {**E3, "detail": "declared 30 x 40, is 40 x 30 (swapped)"},
    ),
]
WARNINGS_AND_NOTES: list[tuple[str, str, Spoil, str]] = [
    ("B8", "picture-extension", saved(picture("b"), "JPEG"), "warning"),
    (
        "B11 upright",
        "picture-turned",
        both(
            saved(picture("b"), exif=exif(6)),
            with_image(width=30, height=40),
            with_box(1, 2, 10, 10),
        ),
        "note",
    ),
]


@pytest.mark.parametrize(
    ("code", "spoil", "at"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS]
)
def test_an_error_is_reported_with_its_place(
    place: Path, code: str, spoil: Spoil, at: dict[str, Any]
) -> None:
    check_error(place, code, spoil, at)


@pytest.mark.parametrize(
    ("code", "spoil", "severity"),
    [r[1:] for r in WARNINGS_AND_NOTES],
    ids=[r[0] for r in WARNINGS_AND_NOTES],
)
def test_a_warning_or_note_is_no_error(place: Path, code: str, spoil: Spoil, severity: str) -> None:
    check_no_error(place, code, spoil, severity)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_lies_on_the_same_pixels_after_turning(
    tmp_path: Path, orientation: int, name: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("L", (20, 10))
    picture.paste(255, (3, 1, 9, 4))
    picture.save(tmp_path / name, exif=exif)
    (seen,) = inspect([tmp_path / name], tmp_path)
    x, y, width, height = rotated(np.array([[3.0, 1, 6, 3]]), seen)[0].tolist()
    result = ImageOps.grayscale(open_picture(tmp_path / name)).getbbox()
    assert result == (x, y, x + width, y + height)
    assert seen.upright == open_picture(tmp_path / name).size


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_where_it_is_allowed_boxes_on_unturned_pixels_are_rotated(
    tmp_path: Path, name: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / name, exif=exif)
    content = {
        "images": [{"id": 1, "file_name": name, "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 2]}],
        "categories": [{"id": 1, "name": "red"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = Data(train=tmp_path / "train.json", allow=["size-unturned"])
    (picture,) = load_split(data, "val", tmp_path).pictures
    assert picture.boxes.tolist() == [[8, 0, 2, 4]]


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_a_declared_size_is_compared_as_the_picture_is_seen(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / name, exif=exif)
    codes = {}
    for size in ((10, 20), (20, 10), (20, 20)):
        content = {
            "images": [{"id": 1, "file_name": name, "width": size[0], "height": size[1]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 2]}],
            "categories": [{"id": 1, "name": "red"}],
        }
        (tmp_path / "train.json").write_text(json.dumps(content))
        examined = examine(Data(train=tmp_path / "train.json"), tmp_path)
        codes[size] = [finding.code for finding in examined.errors]
    assert codes == {(10, 20): [], (20, 10): ["size-unturned"], (20, 20): ["size-wrong"]}
