"""Boxes turn as their pictures do."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from trainer.config import Data
from trainer.data.canvas import open_picture
from trainer.data.checks.box_checks import turned
from trainer.data.checks.examine import examine
from trainer.data.checks.pictures import see
from trainer.data.loading import load_split


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
    (seen,) = see([tmp_path / name], tmp_path)
    x, y, width, height = turned(np.array([[3.0, 1, 6, 3]]), seen)[0].tolist()
    found = ImageOps.grayscale(open_picture(tmp_path / name)).getbbox()
    assert found == (x, y, x + width, y + height)
    assert seen.upright == open_picture(tmp_path / name).size


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_where_it_is_allowed_boxes_on_unturned_pixels_are_turned(tmp_path: Path, name: str) -> None:
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
