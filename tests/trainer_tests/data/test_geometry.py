"""Boxes turn as their pictures do."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from trainer.config import Data
from trainer.data.canvas import open_picture
from trainer.data.formats import load_split
from trainer.data.geometry import turned
from trainer.data.pictures import see


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_lies_on_the_same_pixels_after_turning(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("L", (20, 10))
    picture.paste(255, (3, 1, 9, 4))
    picture.save(tmp_path / "a.png", exif=exif)
    (seen,) = see([tmp_path / "a.png"], tmp_path)
    x, y, width, height = turned(np.array([[3.0, 1, 6, 3]]), seen)[0].tolist()
    found = ImageOps.grayscale(open_picture(tmp_path / "a.png")).getbbox()
    assert found == (x, y, x + width, y + height)
    assert seen.upright == open_picture(tmp_path / "a.png").size


def test_where_it_is_allowed_boxes_on_unturned_pixels_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png", exif=exif)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 2]}],
        "categories": [{"id": 1, "name": "red"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = Data(train=tmp_path / "train.json", allow=["size-unturned"])
    (picture,) = load_split(data, "val", tmp_path).pictures
    assert picture.boxes.tolist() == [[8, 0, 2, 4]]
