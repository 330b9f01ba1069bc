"""YOLO's data.yaml with its folders, lists and label files."""

from pathlib import Path

import pytest
from PIL import Image

from trainer.config import BadInput
from trainer.data.examine import Examined, examine
from trainer.data.formats import find, load

YAML = "names: [red, blue]\n"


def add(folder: Path, name: str, text: str | None, labels: str = "labels") -> None:
    """A picture of 40 x 20 in `folder`/images, and its boxes."""
    picture = folder / "images" / f"{name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    level = sum(map(ord, str(folder.name + name)))
    Image.new("RGB", (40, 20), (level % 256, level // 256, len(name))).save(picture)
    if text is not None:
        (folder / labels).mkdir(exist_ok=True)
        (folder / labels / f"{name}.txt").write_text(text)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """As Roboflow exports it, paths that lead astray included."""
    place = tmp_path / "yolo"
    add(place / "train", "a", "1 0.5 0.5 0.25 0.5\n0 0.25 0.5 0.1 0.1\n")
    add(place / "valid", "b", "1 0.5 0.5 0.5 0.5\n")
    (place / "data.yaml").write_text(
        YAML + "nc: 2\ntrain: ../train/images\nval: ../valid/images\ndownload: touch ../ran\n"
    )
    return place


def found(place: Path) -> Examined:
    return examine(find(place), place.parent)


def codes(place: Path) -> set[str]:
    return {finding.code for finding in found(place).errors}


def test_boxes_become_pixels_and_classes_keep_their_numbers(place: Path) -> None:
    splits = load(find(place), place.parent)
    assert [(c.id, c.name) for c in splits.categories] == [(0, "red"), (1, "blue")]
    (picture,) = splits.train.pictures
    assert picture.boxes.tolist() == [[15, 5, 10, 10], pytest.approx([8, 9, 4, 2])]
    assert picture.labels.tolist() == [2, 1]
    assert not (place.parent / "ran").exists()


def test_the_yaml_itself_can_be_named_and_lists_work(place: Path) -> None:
    (place / "list.txt").write_text("./train/images/a.png\n")
    (place / "data.yaml").write_text(
        "path: .\ntrain: list.txt\nval: valid/images\nnames: {0: red, 1: blue}\n"
    )
    splits = load(find(place / "data.yaml"), place.parent)
    assert [p.file.name for p in splits.train.pictures] == ["a.png"]


def test_a_polygon_becomes_the_box_around_it(place: Path) -> None:
    add(place / "train", "a", "0 0.25 0.5 0.5 0.5 0.5 1 0.3 0.9\n1 0.5 0.5 0.5 0.5\n")
    (picture,) = load(find(place), place.parent).train.pictures
    assert picture.boxes[0].tolist() == [10, 10, 10, 10]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0 0.5 0.5 0.2", "box-malformed"),
        ("0 a b c d", "box-malformed"),
        ("7 0.5 0.5 0.2 0.2", "unknown-category"),
        ("0.5 0.5 0.5 0.2 0.2", "unknown-category"),
        ("0 nan 0.5 0.2 0.2", "box-not-finite"),
        ("0 0.5 0.5 0 0.2", "box-empty"),
        ("0 1.5 0.5 0.2 0.2", "box-outside"),
        ("0 20 10 8 4", "boxes-in-pixels"),
    ],
)
def test_a_wrong_line_is_told_by_its_number(place: Path, text: str, code: str) -> None:
    add(place / "train", "c", f"\n{text}\n")
    if code != "boxes-in-pixels":
        add(place / "train", "d", "0 0.5 0.5 0.2 0.2\n" * 5)
    else:
        add(place / "train", "a", text)
    finding = next(f for f in found(place).errors if f.code == code)
    if code != "boxes-in-pixels":
        assert finding.places[0].annotation == "c.txt line 2"


def test_pictures_without_label_files_are_told_apart_from_empty_ones(place: Path) -> None:
    add(place / "train", "empty", "")
    add(place / "train", "gone", None)
    by_code = {f.code: f for f in found(place).findings if f.split == "train"}
    assert by_code["unlabelled"].places[0].file.endswith("gone.png")
    assert by_code["without-boxes"].places[0].file.endswith("empty.png")
    for i in range(5):
        add(place / "train", f"gone{i}", None)
    assert codes(place) == {"mostly-unlabelled"}


def test_label_files_without_a_picture_are_told(place: Path) -> None:
    (place / "train" / "labels" / "lone.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (place / "train" / "labels" / "classes.txt").write_text("red\nblue\n")
    finding = next(f for f in found(place).findings if f.code == "label-without-picture")
    assert [each.file for each in finding.places] == ["train/labels/lone.txt"]


def test_names_may_be_numbered_in_quotes(place: Path) -> None:
    text = "train: train/images\nval: valid/images\nnames: {'0': red, '1': blue}\n"
    (place / "data.yaml").write_text(text)
    assert [(c.id, c.name) for c in found(place).categories] == [(0, "red"), (1, "blue")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("train: nowhere\nval: valid/images\n" + YAML, "file-missing"),
        ("train: train/images\nval: valid/images\nnc: 3\n" + YAML, "file-unreadable"),
        ("train: train/images\nval: train/images\n" + YAML, "split-twice"),
        ("train: train/images\nval: valid/images\nnames: {a: b}\n", "file-unreadable"),
        ("train: train/images\nval: valid/images\nkpt_shape: [2, 3]\n" + YAML, "file-unreadable"),
    ],
)
def test_a_yaml_that_is_wrong_is_told(place: Path, text: str, code: str) -> None:
    (place / "data.yaml").write_text(text)
    assert code in codes(place)


def test_a_broken_data_yaml_is_told_where_its_folder_is_given(place: Path) -> None:
    (place / "data.yaml").write_text("names: [red\n")
    with pytest.raises(BadInput, match=r"data\.yaml: while parsing"):
        find(place)


def test_a_list_that_leads_out_is_told(place: Path) -> None:
    (place / "list.txt").write_text("train/images/a.png\n/etc/hostname\n")
    (place / "data.yaml").write_text(YAML + "train: list.txt\nval: valid/images\n")
    assert "path-outside" in codes(place)


def test_nothing_in_a_yaml_is_run(place: Path) -> None:
    (place / "data.yaml").write_text('names: !!python/object/apply:os.system ["touch ran"]\n')
    with pytest.raises(BadInput):
        find(place / "data.yaml")
