"""Every error of a COCO file, each with what is wrong and where."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from trainer.data.validate import SHOWN, Findings, check_coco

Coco = dict[str, Any]
GOOD: Coco = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "sub/b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5]},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [1.5, 2.5, 0.5, 0.5]},
    ],
    "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).touch()
    return tmp_path


def check(folder: Path, change: Callable[[Coco], Any] = lambda coco: None) -> list[str]:
    coco = deepcopy(GOOD)
    change(coco)
    return check_coco("data.val", coco, [folder]).errors


def test_a_sound_file_has_no_errors(folder: Path) -> None:
    assert check(folder) == []


def test_annotations_need_no_ids(folder: Path) -> None:
    assert check(folder, lambda coco: [a.pop("id") for a in coco["annotations"]]) == []


def test_pictures_are_looked_for_in_every_folder(folder: Path) -> None:
    (folder / "a.png").rename(folder / "sub" / "a.png")
    assert check_coco("data.val", GOOD, [folder, folder / "sub"]).errors == []


def change(part: str, position: int, **values: Any) -> Callable[[Coco], Any]:
    return lambda coco: coco[part][position].update(values)


SHAPE = "boxes that are not x, y, width, height with a width and height above 0"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c: c.update(images=[]), "the split is empty: it lists no images"),
        (lambda c: c.update(annotations=[]), "the split has no boxes"),
        (lambda c: c["images"][1].pop("id"), "images without id or file_name: number 1"),
        (lambda c: c["categories"][1].pop("name"), "categories without id or name: number 1"),
        (lambda c: c["categories"].append("x"), "categories without id or name: number 2"),
        (lambda c: c["images"][0].pop("file_name"), "images without id or file_name: number 0"),
        (
            lambda c: c["annotations"][1].pop("bbox"),
            "annotations without image_id or category_id or bbox: number 1",
        ),
        (
            change("annotations", 0, image_id=9),
            "annotations of unknown images: 1 (image 9)",
        ),
        (
            change("annotations", 0, category_id=1),
            "annotations of unknown categories: 1 (category 1)",
        ),
        (change("annotations", 1, id=1), "annotation ids given twice: 1"),
        (
            change("images", 0, file_name="../secret.png"),
            "file names that lead out of the picture folder: ../secret.png",
        ),
        (
            change("images", 0, file_name="/etc/passwd"),
            "file names that lead out of the picture folder: /etc/passwd",
        ),
        (change("annotations", 1, bbox=[0, 0, 0, 5]), f"{SHAPE}: 2 [0, 0, 0, 5]"),
        (change("annotations", 1, bbox=[0, 0, 5, -5]), f"{SHAPE}: 2 [0, 0, 5, -5]"),
        (change("annotations", 1, bbox=[0, 0, 5]), f"{SHAPE}: 2 [0, 0, 5]"),
        (change("annotations", 1, bbox=[]), f"{SHAPE}: 2 []"),
        (change("annotations", 1, bbox=None), f"{SHAPE}: 2 None"),
        (change("annotations", 1, bbox=[0, "0", 5, 5]), f"{SHAPE}: 2 [0, '0', 5, 5]"),
        (
            change("annotations", 1, bbox=[float("nan"), 0, 5, 5]),
            f"{SHAPE}: 2 [nan, 0, 5, 5]",
        ),
        (
            change("annotations", 1, bbox=[0, 0, float("inf"), 5]),
            f"{SHAPE}: 2 [0, 0, inf, 5]",
        ),
    ],
)
def test_each_error_says_what_and_where(
    folder: Path, wrong: Callable[[Coco], Any], message: str
) -> None:
    assert f"data.val: {message}" in check(folder, wrong)


def test_a_missing_picture_is_told_with_where_it_was_looked_for(folder: Path) -> None:
    (folder / "a.png").unlink()
    assert check(folder) == [f"data.val: no such picture in {folder}: a.png"]


def test_an_image_id_given_twice_is_told(folder: Path) -> None:
    assert "data.val: image ids given twice: 1" in check(folder, change("images", 1, id=1))


def test_several_errors_are_told_at_once(folder: Path) -> None:
    def spoil(coco: Coco) -> None:
        coco["images"][0]["file_name"] = "gone.png"
        coco["annotations"][0].update(category_id=99, bbox=[0, 0, 0, 0])
        coco["annotations"][1]["image_id"] = 99

    errors = check(folder, spoil)
    assert len(errors) == 4
    assert all(error.startswith("data.val: ") for error in errors)


def test_many_findings_of_a_kind_are_counted(folder: Path) -> None:
    def spoil(coco: Coco) -> None:
        coco["annotations"] = [
            {"id": i, "image_id": 1, "category_id": 3, "bbox": [0, 0, 0, 0]}
            for i in range(SHOWN + 7)
        ]

    (error,) = check(folder, spoil)
    assert error.endswith(" and 7 more")
    assert error.count("[0, 0, 0, 0]") == SHOWN


def test_findings_without_places_are_none() -> None:
    findings = Findings()
    findings.add("kind", [])
    assert findings.errors == []
