"""What a model cannot detect is reported before it trains."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.config import Data, Model
from trainer.data.checks.examine import Examined, examine
from trainer.data.checks.undetectable import most_objects, needed_canvases
from trainer.data.dataset import Picture
from trainer.data.loading import load

Box = list[float]


def examined(
    folder: Path, boxes: list[Box], model: Model | None, crowd: int = 0, pictures: bool = True
) -> Examined:
    Image.new("RGB", (640, 320)).save(folder / "a.png")
    Image.new("RGB", (64, 64)).save(folder / "b.png")
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 640, "height": 320},
            {"id": 2, "file_name": "b.png", "width": 64, "height": 64},
        ],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": int(i < crowd)}
            for i, box in enumerate(boxes)
        ]
        + [{"id": 999, "image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 2]}],
        "categories": [{"id": 1, "name": "red"}],
    }
    (folder / "train.json").write_text(json.dumps(content))
    return examine(Data(train=folder / "train.json"), folder, pictures=pictures, model=model)


def places(result: Examined, code: str) -> list[str]:
    return [
        f"{finding.severity} {finding.count} " + ", ".join(map(str, finding.places))
        for finding in result.findings
        if finding.code == code
    ]


@pytest.mark.parametrize("pictures", [True, False])
def test_objects_that_vanish_on_the_canvas_are_counted(tmp_path: Path, pictures: bool) -> None:
    boxes: list[Box] = [[9, 9, 4, 4], [9, 9, 3.9, 40], [20, 20, 400, 3], [1, 1, 3, 3]]
    result = examined(tmp_path, boxes, Model(), pictures=pictures)
    (line,) = places(result, "box-vanishing")
    assert line.startswith("warning 3 annotation 1 of image 1 (a.png): 1.95 x 20 px on a canvas ")
    assert line.endswith("annotation 3 of image 1 (a.png): 1.5 x 1.5 px on a canvas of 320 px")
    assert not result.errors
    (line,) = places(examined(tmp_path, boxes, Model(), crowd=2), "box-vanishing")
    assert line.startswith("warning 2 ")  # crowds are none
    assert not places(examined(tmp_path, boxes, Model(image_size=640)), "box-vanishing")
    assert not places(examined(tmp_path, boxes, None), "box-vanishing")


def test_boxes_that_are_misread_do_not_vanish_too(tmp_path: Path) -> None:
    result = examined(tmp_path, [[0.1, 0.1, 0.2, 0.2 + 0.01 * i] for i in range(20)], Model())
    assert [finding.code for finding in result.errors] == ["boxes-normalised"]
    assert not places(result, "box-vanishing")


def test_pictures_with_more_objects_than_can_be_detected_are_counted(tmp_path: Path) -> None:
    boxes: list[Box] = [[20.0 * (i % 30), 20.0 * (i // 30), 9, 9] for i in range(104)]
    text = "image 1 (a.png): 104 objects, at most 100 can be detected"
    assert places(examined(tmp_path, boxes, Model()), "many-objects") == [f"warning 1 {text}"]
    for model, crowd in ((Model(detections=104), 0), (Model(), 4), (None, 0)):
        assert not places(examined(tmp_path, boxes, model, crowd), "many-objects")


def test_a_search_is_reported_of_its_own_canvas(tmp_path: Path) -> None:
    examined(tmp_path, [[9, 9, 3, 3]] * 2, None)
    data = Data(train=tmp_path / "train.json")
    for size, is_told in ((320, True), (640, False)):
        notes = load(data, tmp_path, model=Model(image_size=size)).notes
        assert any("2 box-vanishing" in note for note in notes) == is_told


def test_the_canvas_that_each_object_needs(make_picture: Callable[..., Picture]) -> None:
    boxes = [(1.0, 0, 0, 4, 40), (1.0, 0, 0, 40, 10), (1.0, 0, 0, 1, 1)]
    pictures = [make_picture(1, boxes, size=(640, 320), crowd=(2,)), make_picture(2)]
    assert np.allclose(needed_canvases(pictures), [320, 128])
    assert most_objects(pictures) == 2
