"""The data: part of a config, as guessed from a file or a folder."""

from pathlib import Path

import pytest

from trainer.config import Data, InputError
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load, load_split

from ..small_sets import CACHE, draw, write


def test_a_roboflow_export_is_read_and_its_root_dropped_with_a_note(roboflow: Path) -> None:
    splits = load(find_layout(roboflow), CACHE)
    assert [(c.id, c.name) for c in splits.categories] == [(1, "red"), (2, "blue")]
    assert splits.train.pictures[0].labels.tolist() == [1, 2]
    assert [s.pictures[0].file.stem for s in (splits.train, splits.val, splits.test) if s] == (
        ["train", "valid", "test"]
    )
    assert "category 0 (cells)" in splits.notes[0] and "dropped" in splits.notes[0]


def test_find_takes_a_json_or_a_folder_of_them(data: Data, tmp_path: Path) -> None:
    folder = data.train.parent
    assert find_layout(data.train) == Data(train=data.train)
    assert find_layout(folder) == data
    (folder / "images").mkdir()
    assert find_layout(folder) == data  # where no picture is, none is looked for
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).rename(folder / "images" / name)
    assert find_layout(folder).images == folder / "images"


def test_find_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"looked for train\.json, train/_annotations.*\(YOLO\), .*VOC"
    ):
        find_layout(tmp_path)


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
    for data in (find_layout(place), find_layout(place / classes)):
        train = load_split(data, "train", CACHE)
        assert [c.name for c in train.categories] == ["red", "blue, dark"]
        assert [picture.labels.tolist() for picture in train.pictures] == [[1, 2]] * 2


def test_a_class_list_with_a_folder_a_split_has_splits(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "red\nblue")
    for split, names in (("train", ("a.png", "b.png")), ("val", ("c.png",))):
        for name in draw(tmp_path / "images" / split, *names):
            write(tmp_path / "labels" / split / f"{name[0]}.txt", LABELS)
    splits = load(find_layout(tmp_path), CACHE)
    assert (len(splits.train.pictures), len(splits.val.pictures), splits.val_is_from_train) == (
        2,
        1,
        False,
    )


def test_a_class_list_shows_nothing_of_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "place" / "labels").mkdir(parents=True)
    write(tmp_path / "secret", "a password")
    (tmp_path / "place" / "classes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"classes\.txt: is a link; put the file itself there"):
        find_layout(tmp_path / "place")
    (tmp_path / "place" / "classes.txt").unlink()
    (tmp_path / "place" / "classes.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"classes\.txt: is not UTF-8 text"):
        find_layout(tmp_path / "place")


def test_a_class_list_is_enough_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "labels" / "classes.txt", "red\nblue")
    for name in draw(tmp_path / "images", "a.png"):
        write(tmp_path / "labels" / f"{name[0]}.txt", LABELS)
    monkeypatch.chdir(tmp_path / "labels")
    assert len(load_split(find_layout(Path("classes.txt")), "train", CACHE).pictures) == 1


def test_a_class_list_without_labels_is_none(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "red")
    with pytest.raises(InputError, match="no data set here"):
        find_layout(tmp_path)


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
    train = load_split(find_layout(tmp_path), "train", CACHE)
    assert [len(picture.boxes) for picture in train.pictures] == [1, 1]
