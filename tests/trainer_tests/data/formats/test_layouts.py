"""Data sets as they are found on disks, and what is said of those that are wrong."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.config import BadInput, Data
from trainer.data.checks.examine import examine
from trainer.data.dataset import Splits
from trainer.data.formats.layouts import ROBOFLOW, find
from trainer.data.loading import load, load_split

Coco = dict[str, Any]
CACHE = Path("/nowhere/that/can/be/written")
NAMES = ({"id": 7, "name": "blue"}, {"id": 3, "name": "red"})


def coco(pictures: list[str], categories: Any = NAMES) -> Coco:
    """A picture's boxes: one of each category."""
    images = [{"id": 10 + i, "file_name": name} for i, name in enumerate(pictures)]
    pairs = [(image, category) for image in images for category in categories]
    annotations = [
        {
            "id": 1 + i,
            "image_id": image["id"],
            "category_id": category["id"],
            "bbox": [i % 16, 2, 3, 4],
        }
        for i, (image, category) in enumerate(pairs)
    ]
    return {"images": images, "annotations": annotations, "categories": list(categories)}


def draw(folder: Path, *names: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        colour = tuple(hashlib.sha256(name.encode()).digest()[:3])
        Image.new("RGB", (20, 10), colour).save(folder / name)
    return list(names)


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """A sound data set of two pictures to train on and one to evaluate on."""
    train, val = draw(tmp_path, "a.png", "b.png"), draw(tmp_path, "c.png")
    return Data(
        train=write(tmp_path / "train.json", coco(train)),
        val=write(tmp_path / "val.json", coco(val)),
    )


def errors_of(data: Data) -> list[str]:
    with pytest.raises(BadInput) as raised:
        load(data, CACHE)
    return raised.value.errors


def rewrite(file: Path | None, change: Callable[[Coco], Any]) -> None:
    assert file
    content = json.loads(file.read_text())
    change(content)
    write(file, content)


def test_category_ids_with_gaps_become_labels_from_1_in_their_order(data: Data) -> None:
    splits = load(data, CACHE)
    assert [(c.id, c.name) for c in splits.categories] == [(3, "red"), (7, "blue")]
    picture = splits.train.pictures[1]
    assert picture.id == 11
    assert picture.labels.tolist() == [2, 1]
    assert picture.boxes.tolist() == [[2, 2, 3, 4], [3, 2, 3, 4]]
    assert not picture.crowd.any()
    assert splits.test is None
    assert not splits.made
    (note,) = splits.notes
    assert note.startswith("data: warnings (2 class-rare, 2 split-small)")


def test_val_has_the_labels_of_train_even_where_it_lists_fewer(data: Data) -> None:
    rewrite(data.val, lambda c: c["categories"].pop(1))
    rewrite(data.val, lambda c: c["annotations"].pop(1))
    (picture,) = load(data, CACHE).val.pictures
    assert picture.labels.tolist() == [2]


def test_crowds_are_marked(data: Data) -> None:
    rewrite(data.train, lambda c: c["annotations"][0].update(iscrowd=1))
    assert load(data, CACHE).train.pictures[0].crowd.tolist() == [True, False]


def test_a_picture_without_boxes_stays(data: Data) -> None:
    rewrite(data.train, lambda c: c.update(annotations=c["annotations"][2:]))
    picture = load(data, CACHE).train.pictures[0]
    assert (picture.boxes.shape, picture.labels.shape) == ((0, 4), (0,))


def test_sizes_are_as_seen_whatever_the_json_says(data: Data, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png", exif=exif)
    rewrite(data.train, lambda c: c["images"][1].update(width=999, height=1))
    allowing = data.model_copy(update={"allow": ["size-wrong"]})
    first, second = load(allowing, CACHE).train.pictures
    assert (first.width, first.height) == (10, 20)
    assert (second.width, second.height) == (20, 10)


def test_pictures_lie_beside_the_json_in_images_or_where_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "train.json", coco(["a.png"]))
    write(tmp_path / "val.json", coco(["b.png"]))
    data = Data(train=tmp_path / "train.json", val=tmp_path / "val.json")
    draw(tmp_path / "images", "a.png")
    draw(tmp_path, "b.png")
    beside = load(data, CACHE)
    assert beside.train.pictures[0].file == (tmp_path / "images" / "a.png").resolve()
    draw(tmp_path / "one", "a.png", "b.png")
    one = load(data.model_copy(update={"images": tmp_path / "one"}), CACHE)
    assert one.val.pictures[0].file.parent.name == "one"
    draw(tmp_path / "two", "b.png")
    own = {"train": tmp_path / "one", "val": tmp_path / "two"}
    each = load(data.model_copy(update={"images": own}), CACHE)
    assert [s.pictures[0].file.parent.name for s in (each.train, each.val)] == ["one", "two"]


def test_two_pictures_of_one_name_are_told_unless_they_are_equal(tmp_path: Path) -> None:
    write(tmp_path / "train.json", coco(["a.png"]))
    data = Data(train=tmp_path / "train.json", val_fraction=0.5)
    draw(tmp_path, "a.png")
    copytree(tmp_path, tmp_path / "images")
    assert "place-ambiguous" not in {f.code for f in examine(data, CACHE).errors}
    with (tmp_path / "images" / "a.png").open("ab") as file:
        file.write(b"another")
    (finding,) = (f for f in examine(data, CACHE).errors if f.code == "place-ambiguous")
    assert "images/a.png" in finding.line
    one = data.model_copy(update={"images": tmp_path / "images"})
    assert "place-ambiguous" not in {f.code for f in examine(one, CACHE).errors}


def test_the_digest_is_of_the_content_not_of_the_place(data: Data, tmp_path: Path) -> None:
    there = copytree(data.train.parent, tmp_path / "there")
    (there / "a.png").rename(there / "other name.png")
    rewrite(there / "train.json", lambda c: c["images"][0].update(file_name="other name.png"))
    moved = Data(train=there / "train.json", val=there / "val.json")
    assert load(moved, CACHE).digest == load(data, CACHE).digest


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].update(bbox=[0, 2, 3, 5]),
        lambda c: c["annotations"][0].update(category_id=3),
        lambda c: c["annotations"][0].update(iscrowd=1),
        lambda c: c["annotations"].pop(),
        lambda c: c["images"].reverse(),
        lambda c: c["images"][0].update(file_name="d.png"),
    ],
)
def test_the_digest_sees_every_change(data: Data, change: Callable[[Coco], Any]) -> None:
    draw(data.train.parent, "d.png")
    before = load(data, CACHE).digest
    rewrite(data.train, change)
    assert load(data, CACHE).digest != before


def test_test_has_no_say_in_the_digest(data: Data, tmp_path: Path) -> None:
    with_test = data.model_copy(
        update={"test": write(tmp_path / "test.json", coco(draw(tmp_path, "d.png")))}
    )
    splits = load(with_test, CACHE)
    assert splits.test and len(splits.test.pictures) == 1
    assert splits.digest == load(data, CACHE).digest


@pytest.fixture
def roboflow(tmp_path: Path) -> Path:
    """As Roboflow exports it: a folder a split, and a root category 0 without boxes."""
    categories = [
        {"id": 1, "name": "red", "supercategory": "cells"},
        {"id": 2, "name": "blue", "supercategory": "cells"},
    ]
    root = tmp_path / "export"
    for folder in ("train", "valid", "test"):
        content = coco(draw(root / folder, f"{folder}.png"), categories)
        content["categories"].insert(0, {"id": 0, "name": "cells", "supercategory": "none"})
        write(root / folder / ROBOFLOW, content)
    return root


def test_a_roboflow_export_is_found_and_its_root_dropped_with_a_note(roboflow: Path) -> None:
    splits = load(find(roboflow), CACHE)
    assert [(c.id, c.name) for c in splits.categories] == [(1, "red"), (2, "blue")]
    assert splits.train.pictures[0].labels.tolist() == [1, 2]
    assert [s.pictures[0].file.stem for s in (splits.train, splits.val, splits.test) if s] == (
        ["train", "valid", "test"]
    )
    assert "category 0 (cells)" in splits.notes[0] and "dropped" in splits.notes[0]


def test_a_root_with_boxes_stays(roboflow: Path) -> None:
    extra = {"id": 9, "image_id": 10, "category_id": 0, "bbox": [1, 1, 5, 5]}
    rewrite(roboflow / "train" / ROBOFLOW, lambda c: c["annotations"].append(extra))
    splits = load(find(roboflow), CACHE)
    assert [c.id for c in splits.categories] == [0, 1, 2]
    assert not [note for note in splits.notes if "root" in note]


def test_an_unused_class_that_is_no_root_stays(data: Data) -> None:
    rewrite(data.train, lambda c: c["categories"].append({"id": 9, "name": "rare"}))
    assert [c.id for c in load(data, CACHE).categories] == [3, 7, 9]
    rewrite(data.train, lambda c: c["categories"][-1].update(supercategory="rare"))
    assert [c.id for c in load(data, CACHE).categories] == [3, 7, 9]


def test_find_takes_a_json_or_a_folder_of_them(data: Data, tmp_path: Path) -> None:
    folder = data.train.parent
    assert find(data.train) == Data(train=data.train)
    assert find(folder) == data
    (folder / "images").mkdir()
    assert find(folder) == data  # where no picture is, none is looked for
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).rename(folder / "images" / name)
    assert find(folder).images == folder / "images"


def test_find_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"looked for train\.json, train/_annotations.*\(YOLO\), .*VOC"
    ):
        find(tmp_path)


LABELS = "0 0.5 0.5 0.2 0.4\n1 0.25 0.5 0.1 0.2\n"


@pytest.mark.parametrize(
    ("classes", "images", "labels"),
    [
        ("classes.txt", "images", "labels"),
        ("classes.txt", "images/train", "labels/train"),
        ("classes.txt", "", ""),
        ("labels/classes.txt", "images", "labels"),
    ],
    ids=["Label Studio", "a folder a split", "labelImg", "labelImg among the labels"],
)
def test_yolo_without_a_data_yaml_has_its_classes_in_a_file(
    tmp_path: Path, classes: str, images: str, labels: str
) -> None:
    place = tmp_path / "place"
    write(place / classes, "red\nblue, dark\n\n")
    write(place / "notes.json", {"categories": [{"id": 0, "name": "red"}], "info": {}})
    for name in draw(place / images, "a.png", "b.png"):
        write(place / labels / f"{name[0]}.txt", LABELS)
    for data in (find(place), find(place / classes)):
        train = load_split(data, "train", CACHE)
        assert [c.name for c in train.categories] == ["red", "blue, dark"]
        assert [picture.labels.tolist() for picture in train.pictures] == [[1, 2]] * 2


def test_a_class_list_with_a_folder_a_split_has_splits(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "red\nblue")
    for split, names in (("train", ("a.png", "b.png")), ("val", ("c.png",))):
        for name in draw(tmp_path / "images" / split, *names):
            write(tmp_path / "labels" / split / f"{name[0]}.txt", LABELS)
    splits = load(find(tmp_path), CACHE)
    assert (len(splits.train.pictures), len(splits.val.pictures), splits.made) == (2, 1, False)


def test_a_class_list_shows_nothing_of_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "place" / "labels").mkdir(parents=True)
    write(tmp_path / "secret", "a password")
    (tmp_path / "place" / "classes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match=r"classes\.txt: is a link; put the file itself there"):
        find(tmp_path / "place")
    (tmp_path / "place" / "classes.txt").unlink()
    (tmp_path / "place" / "classes.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BadInput, match=r"classes\.txt: is not UTF-8 text"):
        find(tmp_path / "place")


def test_a_class_list_is_enough_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "labels" / "classes.txt", "red\nblue")
    for name in draw(tmp_path / "images", "a.png"):
        write(tmp_path / "labels" / f"{name[0]}.txt", LABELS)
    monkeypatch.chdir(tmp_path / "labels")
    assert len(load_split(find(Path("classes.txt")), "train", CACHE).pictures) == 1


def test_a_class_list_without_labels_is_none(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "red")
    with pytest.raises(BadInput, match="found no data set here"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("folder", "pictures", "image_set"),
    [("labels", "data", ""), ("Annotations", "JPEGImages", "ImageSets/Main/default.txt")],
    ids=["FiftyOne", "CVAT"],
)
def test_other_layouts_of_voc(tmp_path: Path, folder: str, pictures: str, image_set: str) -> None:
    for name in draw(tmp_path / pictures, "a.png", "b.png"):
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
        xml = f"<annotation><object><name>cat</name>{box}</object></annotation>"
        write(tmp_path / folder / f"{name[0]}.xml", xml)
    if image_set:
        write(tmp_path / image_set, "a\nb\n")
    train = load_split(find(tmp_path), "train", CACHE)
    assert [len(picture.boxes) for picture in train.pictures] == [1, 1]


def many(folder: Path, reverse: bool) -> Splits:
    names = draw(folder, *(f"{i}.png" for i in range(40)))
    file = write(folder / "train.json", coco(names[::-1] if reverse else names))
    return load(Data(train=file, val_fraction=0.25), CACHE)


def test_without_val_a_part_of_train_is_taken_by_content(tmp_path: Path) -> None:
    here, there = many(tmp_path / "here", False), many(tmp_path / "there", True)
    sides = [
        [{picture.file.name for picture in split.pictures} for split in (s.train, s.val)]
        for s in (here, there)
    ]
    assert sides[0] == sides[1]
    assert len(sides[0][0]) + len(sides[0][1]) == 40
    assert len(sides[0][1]) == 10
    assert here.made
    assert here.notes[-1].startswith("no val given: 10 of the pictures")


def test_one_picture_alone_cannot_be_split(tmp_path: Path) -> None:
    file = write(tmp_path / "train.json", coco(draw(tmp_path, "a.png")))
    assert "val" in errors_of(Data(train=file))[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n 1", "train.json: line 2, column 2: "),
        ('{"images": [1], "annotations": [], "categories": []}', "images[0] is no object"),
        ("", "is empty"),
        ("[]", "is no COCO json: it has no list images and no list annotations"),
        ("3", "is no COCO json"),
        ('{"images": [], "annotations": {}, "categories": []}', "it has no list annotations"),
    ],
)
def test_a_file_that_is_no_coco_json_is_told(data: Data, content: str, message: str) -> None:
    write(data.train, content)
    (error,) = errors_of(data)
    assert error.startswith("data.train: file-unreadable: ")
    assert message in error


def test_a_file_that_is_not_there_or_no_text_is_told(data: Data, tmp_path: Path) -> None:
    data.train.write_bytes(b"\xff\xfe{}")
    gone = data.model_copy(update={"val": tmp_path / "gone.json"})
    unreadable, missing = errors_of(gone)
    assert f"data.val: file-missing: no such file or folder: {tmp_path / 'gone.json'}" in missing
    assert "data.train: file-unreadable: " in unreadable and "is UTF-16" in unreadable


def test_a_byte_order_mark_is_read_over(data: Data) -> None:
    data.train.write_bytes(b"\xef\xbb\xbf" + data.train.read_bytes())
    assert len(load(data, CACHE).train.pictures) == 2


def test_errors_of_all_files_are_told_at_once(data: Data, tmp_path: Path) -> None:
    rewrite(data.train, lambda c: c["annotations"][0].update(category_id=99))
    rewrite(data.train, lambda c: c["images"][1].update(file_name="gone.png"))
    rewrite(data.val, lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]))
    errors = errors_of(data)
    assert len(errors) == 3
    assert [error.partition(":")[0] for error in errors] == ["data.train", "data.train", "data.val"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["categories"][0].pop("name"),
        lambda c: c["categories"][0].pop("id"),
        lambda c: c["categories"].append("red"),
        lambda c: c["images"].append("a.png"),
        lambda c: c["annotations"].append(None),
    ],
    ids=["no name", "no id", "no category", "no image", "no annotation"],
)
def test_malformed_entries_are_told(data: Data, change: Callable[[Coco], Any]) -> None:
    rewrite(data.train, change)
    assert errors_of(data)[0].startswith("data.train: ")


def test_a_file_that_is_no_picture_is_told(data: Data, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    (error,) = errors_of(data)
    assert error.startswith("data.train: ") and "b.png" in error


def test_a_file_alone_is_told_of_as_the_split_that_it_is(data: Data, tmp_path: Path) -> None:
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match=r"^data\.test: picture-missing"):
        load_split(Data(train=data.train), "test", tmp_path / "cache")


def test_a_category_that_splits_name_differently_is_told(data: Data) -> None:
    rewrite(data.val, lambda c: c["categories"][0].update(name="green"))
    (error,) = errors_of(data)
    assert "7" in error and "blue" in error and "green" in error


def test_a_category_is_its_text_however_that_is_composed(data: Data) -> None:
    for file, name in ((data.train, "Ge\u0301nois"), (data.val, "G\u00e9nois")):
        rewrite(file, lambda c, name=name: c["categories"][0].update(name=name))
    assert [c.name for c in load(data, CACHE).categories] == ["red", "Ge\u0301nois"]


def test_a_category_id_given_twice_is_told(data: Data) -> None:
    rewrite(data.train, lambda c: c["categories"].append({"id": 3, "name": "green"}))
    assert any("categor" in error and "3" in error for error in errors_of(data))


def test_the_tiny_set_is_read_whole(tiny: Splits) -> None:
    assert (len(tiny.train.pictures), len(tiny.val.pictures)) == (12, 6)
    labels = np.concatenate([picture.labels for picture in tiny.train.pictures])
    assert set(labels.tolist()) == {1, 2}
