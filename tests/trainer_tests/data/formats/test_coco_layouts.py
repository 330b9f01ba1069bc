"""COCO as CVAT, FiftyOne, Label Studio and mmdetection lay it out, and pictures beside it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.config import Data, InputError
from trainer.data.checks.examine import examine
from trainer.data.formats.layouts import find_layout

Layout = dict[str, tuple[str, str]]
"""By json: the folder of its pictures, and what comes before each of their names in it."""
CACHE = Path("/nowhere/that/can/be/written")


def lay_out(place: Path, layout: Layout) -> Path:
    """Two pictures a json, of the same names in all of them but of other colours."""
    for number, (file, (folder, before)) in enumerate(layout.items()):
        (place / folder).mkdir(parents=True, exist_ok=True)
        images = []
        for i in (0, 1):
            picture = Image.new("RGB", (20, 10), (40 * number, 99 * i, 7))
            picture.save(place / folder / f"{i}.png")
            images.append({"id": i, "file_name": f"{before}{i}.png", "width": 20, "height": 10})
        boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 3, 4]} for i in (0, 1)]
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(json.dumps(content))
    return place


def folders_of(data: Data) -> dict[str, str]:
    """The folder of each split's pictures, below that of the data set; all are read without
    errors.
    """
    examined = examine(data, CACHE)
    assert examined.format == "COCO"
    assert [finding.line for finding in examined.errors] == []
    assert all(count == {"pictures": 2, "boxes": 2} for count in examined.counts.values())
    return {name: split.pictures[0].file.parent.name for name, split in examined.splits.items()}


SPLITS = ("train", "val", "test")
LAYOUTS: dict[str, tuple[Layout, list[str]]] = {
    "CVAT": ({"annotations/instances_default.json": ("images/default", "")}, ["default"]),
    "CVAT without subsets": ({"annotations/instances_default.json": ("images", "")}, ["images"]),
    "CVAT's subsets": (
        {
            f"annotations/instances_{name}.json": (f"images/{name}", "")
            for name in ("Train", "Validation", "Test")
        },
        ["Train", "Validation", "Test"],
    ),
    "FiftyOne": ({"labels.json": ("data", "")}, ["data"]),
    "FiftyOne's splits": (
        {f"{name}/labels.json": (f"{name}/data", "") for name in ("train", "validation")},
        ["data", "data"],
    ),
    "Label Studio": ({"result.json": ("images", "images/")}, ["images"]),
    "COCO": (
        {f"annotations/instances_{n}2017.json": (f"{n}2017", "") for n in SPLITS},
        ["train2017", "val2017", "test2017"],
    ),
    "mmdetection": ({f"annotations/{n}.json": (n, "") for n in SPLITS}, [*SPLITS]),
    "mmdetection's balloons": (
        {f"{n}/annotation_coco.json": (n, "") for n in SPLITS[:2]},
        [*SPLITS[:2]],
    ),
    "in images": ({f"annotations/{n}.json": (f"images/{n}", "") for n in SPLITS}, [*SPLITS]),
    "named with the folder": (
        {f"annotations/{n}.json": (n, f"{n}/") for n in SPLITS},
        [*SPLITS],
    ),
    "other names": (
        {f"annotations/cells_{n}_v2.json": (n, "") for n in SPLITS},
        [*SPLITS],
    ),
    "flat": ({f"{n}.json": (n, "") for n in SPLITS}, [*SPLITS]),
    "one of any name": ({"annotations/all.json": ("images", "")}, ["images"]),
    "one beside its pictures": ({"cells.json": ("", "")}, ["place"]),
}


@pytest.mark.parametrize(("layout", "folders"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_gives_the_pictures_of_each_split(
    tmp_path: Path, layout: Layout, folders: list[str]
) -> None:
    place = lay_out(tmp_path / "place", layout)
    assert list(folders_of(find_layout(place)).values()) == folders


@pytest.mark.parametrize(("layout", "folders"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_json_alone_is_enough(tmp_path: Path, layout: Layout, folders: list[str]) -> None:
    place = lay_out(tmp_path / "place", layout)
    assert folders_of(find_layout(place / next(iter(layout)))) == {"train": folders[0]}


def test_the_json_is_enough_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = lay_out(tmp_path, LAYOUTS["CVAT"][0])
    monkeypatch.chdir(place / "annotations")
    assert folders_of(find_layout(Path("instances_default.json"))) == {"train": "default"}


def test_cocos_files_of_other_tasks_are_none(tmp_path: Path) -> None:
    place = lay_out(tmp_path, LAYOUTS["CVAT"][0])
    for name in ("person_keypoints_default", "captions_default", "image_info_test2017"):
        (place / "annotations" / f"{name}.json").write_text(
            (place / "annotations" / "instances_default.json").read_text()
        )
    assert find_layout(place).train.name == "instances_default.json"
    assert find_layout(place).test is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("annotations/instances_train2014.json", "annotations/instances_train2017.json"),
        ("labels.json", "labels_old.json"),
    ],
)
def test_of_two_that_could_be_train_none_is_chosen(tmp_path: Path, first: str, second: str) -> None:
    place = lay_out(tmp_path, {first: ("images", ""), second: ("images", "")})
    names = f"{Path(first).name} or {Path(second).name}"
    with pytest.raises(InputError, match=rf"which is train, {names}\? give that json itself"):
        find_layout(place)


def test_the_plainest_name_of_a_split_counts(tmp_path: Path) -> None:
    names = ("instances_train.json", "instances_train_small.json")
    place = lay_out(tmp_path, {f"annotations/{name}": ("train", "") for name in names})
    assert find_layout(place).train.name == "instances_train.json"


def test_a_json_of_val_alone_is_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set here"):
        find_layout(lay_out(tmp_path, {"annotations/val.json": ("val", "")}))


def test_a_folder_that_holds_other_pictures_is_passed_by(tmp_path: Path) -> None:
    place = lay_out(tmp_path / "place", {"train.json": ("", "")})
    (place / "images").mkdir()
    Image.new("RGB", (20, 10)).save(place / "images" / "figure.png")
    assert folders_of(find_layout(place)) == {"train": "place"}


def test_what_begins_with_a_dot_is_no_part(tmp_path: Path) -> None:
    place = lay_out(tmp_path / "place", LAYOUTS["FiftyOne"][0])
    lay_out(place / ".trash", LAYOUTS["flat"][0])
    (place / "._labels.json").write_bytes(b"\0\5\x16\7")
    (place / ".pre-commit.yaml").write_text("names: [a]\ntrain: .\n")
    assert find_layout(place).train == place / "labels.json"


def test_names_that_no_system_can_look_up_are_in_no_folder(tmp_path: Path) -> None:
    place = lay_out(tmp_path / "place", LAYOUTS["CVAT"][0])
    file = place / "annotations" / "instances_default.json"
    content: dict[str, Any] = json.loads(file.read_text())
    for name in ("x" * 5000, "\ud800.png", "a\0.png", "/etc/hostname", "../images/default/0.png"):
        content["images"][1]["file_name"] = name
        file.write_text(json.dumps(content))
        assert find_layout(place).images == place / "images" / "default"


def test_a_link_to_itself_is_a_picture_that_is_not_there(tmp_path: Path) -> None:
    place = lay_out(tmp_path, {"train.json": ("", "")})
    (place / "0.png").unlink()
    (place / "0.png").symlink_to("0.png")
    examined = examine(find_layout(place / "train.json"), CACHE)
    assert [finding.code for finding in examined.errors] == ["picture-missing"]
