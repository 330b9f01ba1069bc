"""The embedded digits: same on every machine, complete or absent, and sound as detection data."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from PIL import Image

from trainer.data import embedded_digits as digits
from trainer.data.canvas import cache_folder
from trainer.data.embedded_digits import make_digits

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def folder() -> Path:
    # checks its digest itself
    return make_digits(cache_folder())


@pytest.fixture(scope="module")
def coco(folder: Path) -> dict[str, dict[str, Any]]:
    return {split: json.loads((folder / f"{split}.json").read_text()) for split in SPLITS}


@pytest.fixture
def few_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make five pictures instead of hundreds, with another digest, so that makes are fast."""
    monkeypatch.setattr(digits, "COUNTS", {"train": 3, "val": 1, "test": 1})
    with pytest.raises(RuntimeError) as raised:
        make_digits(tmp_path / "first")
    digest = re.search(r"[0-9a-f]{64}", str(raised.value))
    assert digest
    monkeypatch.setattr(digits, "DIGEST", digest[0])


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.usefixtures("few_pictures")
def test_two_makes_give_the_same_bytes(tmp_path: Path) -> None:
    assert contents(make_digits(tmp_path / "a")) == contents(make_digits(tmp_path / "b"))


@pytest.mark.usefixtures("few_pictures")
def test_racing_makes_leave_one_folder(tmp_path: Path) -> None:
    cache = tmp_path / "raced"
    both = Barrier(2)

    def make(_: int) -> Path:
        both.wait()
        return make_digits(cache)

    with ThreadPoolExecutor(2) as pool:
        made = set(pool.map(make, range(2)))
    assert list(cache.iterdir()) == list(made)
    assert contents(made.pop()) == contents(make_digits(tmp_path / "alone"))


def test_second_call_rewrites_nothing(folder: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in [folder, *folder.rglob("*")]}
    assert make_digits(folder.parent) == folder
    assert {file: file.stat().st_mtime_ns for file in [folder, *folder.rglob("*")]} == before


@pytest.mark.usefixtures("few_pictures")
def test_interrupted_make_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Image.Image.save

    def fail_late(picture: Image.Image, file: Path, **options: Any) -> None:
        if file.name == "val-001.png":
            raise KeyboardInterrupt
        save(picture, file, **options)

    cache = tmp_path / "interrupted"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", fail_late)
        make_digits(cache)
    assert not list(cache.iterdir())
    assert make_digits(cache).is_dir()


def test_other_pixels_than_promised_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "COUNTS", {"train": 1, "val": 1, "test": 1})
    with pytest.raises(RuntimeError, match=digits.DIGEST):
        make_digits(tmp_path)
    assert not list(tmp_path.iterdir())


def test_pictures_are_there_in_the_size_given(
    folder: Path, coco: dict[str, dict[str, Any]]
) -> None:
    images = [image for split in SPLITS for image in coco[split]["images"]]
    assert {image["file_name"] for image in images} == {f.name for f in folder.glob("images/*")}
    for image in images:
        with Image.open(folder / "images" / image["file_name"]) as picture:
            assert (picture.mode, *picture.size) == ("RGB", image["width"], image["height"])


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_lie_inside_and_are_not_tiny(coco: dict[str, dict[str, Any]], split: str) -> None:
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco[split]["images"]}
    for annotation in coco[split]["annotations"]:
        x, y, width, height = annotation["bbox"]
        across, down = sizes[annotation["image_id"]]
        assert x >= 0 and y >= 0 and x + width <= across and y + height <= down
        assert min(width, height) >= 8
        assert annotation["area"] == width * height


@pytest.mark.parametrize("split", SPLITS)
def test_every_picture_has_four_to_six_digits_that_hardly_overlap(
    coco: dict[str, dict[str, Any]], split: str
) -> None:
    boxes: dict[int, list[list[int]]] = {image["id"]: [] for image in coco[split]["images"]}
    for annotation in coco[split]["annotations"]:
        boxes[annotation["image_id"]].append(annotation["bbox"])
    assert {len(each) for each in boxes.values()} <= {4, 5, 6}
    for each in boxes.values():
        for (x, y, w, h), (u, v, a, b) in combinations(each, 2):
            shared = max(0, min(x + w, u + a) - max(x, u)) * max(0, min(y + h, v + b) - max(y, v))
            assert shared <= 0.1 * min(w * h, a * b)


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_all_ten_classes(coco: dict[str, dict[str, Any]], split: str) -> None:
    names = {category["id"]: category["name"] for category in coco[split]["categories"]}
    assert names[1] == "zero" and names[10] == "nine" and len(names) == 10
    assert {annotation["category_id"] for annotation in coco[split]["annotations"]} == set(names)


def test_no_handwriting_is_in_two_splits(coco: dict[str, dict[str, Any]]) -> None:
    train, val, test = ({a["sample"] for a in coco[split]["annotations"]} for split in SPLITS)
    assert not train & val and not train & test and not val & test
