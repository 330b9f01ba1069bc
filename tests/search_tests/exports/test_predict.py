"""`unfreeze predict`: pictures with boxes, and the boxes as COCO."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.exports.predict import predict_pictures
from trainer.config import Data, InputError

OUT = Path("out")


def test_predict_draws_each_picture_and_writes_coco(model: Path, tiny_data: Data) -> None:
    pictures = tiny_data.train.parent / "images"
    files = sorted(pictures.glob("val-*.png"))
    Path("broken.png").write_bytes(b"no picture")
    done = predict_pictures(str(model), [*files, Path("broken.png")], Path(), OUT, 0.0)
    (line,) = done.unreadable
    assert line.startswith("broken.png: ")
    drawn = sorted(OUT.glob("*.jpg"))
    assert [file.stem for file in drawn] == [file.stem for file in files]
    content = json.loads((OUT / "detections.json").read_text())
    assert [Path(image["file_name"]).name for image in content["images"]] == [f.name for f in files]
    assert [c["id"] for c in content["categories"]] == [3, 7]
    ids = [annotation["id"] for annotation in content["annotations"]]
    assert (done.pictures, done.boxes) == (len(files), len(ids))
    assert ids == list(range(1, len(ids) + 1))
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert x >= 0 and y >= 0 and x + width <= 96.001 and y + height <= 72.001


def test_no_box_is_below_the_threshold(model: Path, tiny_data: Data) -> None:
    picture = tiny_data.train.parent / "images" / "val-00.png"
    predict_pictures(str(model), [picture], Path(), OUT, 1.0)
    assert json.loads((OUT / "detections.json").read_text())["annotations"] == []


def test_without_a_threshold_the_models_thresholds_count(model: Path, tiny_data: Data) -> None:
    pictures = [tiny_data.train.parent / "images"]
    spec = json.loads((model / "spec.json").read_text())
    counts = []
    for out, red, threshold in (("a", 0.0, None), ("b", 1.0, None), ("c", 1.0, 0.0)):
        spec["thresholds"] = {"red": red, "blue": 1.0}
        (model / "spec.json").write_text(json.dumps(spec))
        predict_pictures(str(model), pictures, Path(), Path(out), threshold)
        annotations = json.loads(Path(out, "detections.json").read_text())["annotations"]
        counts.append(len({a["category_id"] for a in annotations}))
    assert counts == [1, 0, 2]


def test_pictures_of_the_same_name_are_all_written(model: Path) -> None:
    pixels = Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8))
    for name in ("a/x.png", "a/x.jpg", "b/x.png"):
        Path(name).parent.mkdir(exist_ok=True)
        pixels.save(name)
    predict_pictures(str(model), [Path("a"), Path("b")], Path(), OUT, 0.5)
    assert len(list(OUT.glob("*.jpg"))) == 3
    images = json.loads((OUT / "detections.json").read_text())["images"]
    assert len({image["file_name"] for image in images}) == 3


def test_when_no_picture_can_be_read_nothing_is_made(model: Path) -> None:
    Path("text.png").write_text("no picture")
    with pytest.raises(InputError) as raised:
        predict_pictures(str(model), [Path("text.png")], Path(), OUT, 0.5)
    unreadable, nothing = raised.value.errors
    assert unreadable.startswith("text.png: cannot be read as a picture")
    assert nothing == "none of the pictures can be read: nothing was written"
    assert [place.name for place in Path().iterdir() if place.name != "model"] == ["text.png"]


@pytest.mark.parametrize("place", ["nowhere.png", "empty"])
def test_without_pictures_nothing_is_made(model: Path, place: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(InputError):
        predict_pictures(str(model), [Path(place)], Path(), OUT, 0.5)
    assert not OUT.exists()
