"""YOLO's data.yaml with its folders, lists and label files."""

from pathlib import Path
from unicodedata import normalize

import pytest
from PIL import Image

from trainer.data.checks.examine import Examined, examine
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load

from ..yolo_sets import YAML, add, check, codes, draw, make_yolo, write


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_yolo(tmp_path)


def test_boxes_become_pixels_and_classes_keep_their_numbers(place: Path) -> None:
    splits = load(find_layout(place), place.parent)
    assert [(c.id, c.name) for c in splits.categories] == [(0, "red"), (1, "blue")]
    (picture,) = splits.train.pictures
    assert picture.boxes.tolist() == [[15, 5, 10, 10], pytest.approx([8, 9, 4, 2])]
    assert picture.labels.tolist() == [2, 1]
    assert not (place.parent / "ran").exists()


def test_a_polygon_becomes_the_box_around_it(place: Path) -> None:
    add(place / "train", "a", "0 0.25 0.5 0.5 0.5 0.5 1 0.3 0.9\n1 0.5 0.5 0.5 0.5\n")
    (picture,) = load(find_layout(place), place.parent).train.pictures
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
def test_a_wrong_line_is_reported_by_its_number(place: Path, text: str, code: str) -> None:
    add(place / "train", "c", f"\n{text}\n")
    if code != "boxes-in-pixels":
        add(place / "train", "d", "0 0.5 0.5 0.2 0.2\n" * 5)
    else:
        add(place / "train", "a", text)
    finding = next(f for f in check(place).errors if f.code == code)
    if code != "boxes-in-pixels":
        assert finding.places[0].annotation == "c.txt line 2"


def test_pictures_without_label_files_differ_from_empty_ones(place: Path) -> None:
    add(place / "train", "empty", "")
    add(place / "train", "gone", None)
    by_code = {f.code: f for f in check(place).findings if f.split == "train"}
    assert by_code["unlabelled"].places[0].file.endswith("gone.png")
    assert by_code["without-boxes"].places[0].file.endswith("empty.png")
    for i in range(5):
        add(place / "train", f"gone{i}", None)
    assert codes(place) == {"mostly-unlabelled"}


@pytest.mark.parametrize("folder", ["labels", "images"])
def test_label_files_of_another_case_give_a_hint(place: Path, folder: str) -> None:
    add(place / "train", "big", None)
    (place / "train" / folder / "big.TXT").write_text("0 0.5 0.5 0.2 0.2\n")
    (finding,) = (f for f in check(place).findings if f.code == "mostly-unlabelled" or f.hint)
    text = f"there is train/{folder}/big.TXT: rename label files so that they end with .txt"
    assert (finding.code, finding.hint) == ("unlabelled", text)


def test_label_files_without_a_picture_are_reported(place: Path) -> None:
    (place / "train" / "labels" / "lone.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (place / "train" / "labels" / "classes.txt").write_text("red\nblue\n")
    finding = next(f for f in check(place).findings if f.code == "label-without-picture")
    assert [each.file for each in finding.places] == ["train/labels/lone.txt"]


def test_a_list_that_leads_out_is_reported(place: Path) -> None:
    (place / "list.txt").write_text("train/images/a.png\n/etc/hostname\n")
    (place / "data.yaml").write_text(YAML + "train: list.txt\nval: valid/images\n")
    assert "path-outside" in codes(place)


def row(level: int) -> str:
    """A box as wide as its picture is bright."""
    return f"0 0.5 0.5 {level / 100} 0.5\n"


def pair(folder: Path, name: str, level: int) -> None:
    """A picture in `images`, and its label, which tells of which picture it is."""
    draw(folder / "images" / f"{name}.png", level)
    write(folder / "labels" / f"{name}.txt", row(level))


def levels(examined: Examined) -> list[tuple[int, list[int]]]:
    """Of each picture of train how bright it is, and how wide its boxes are."""
    return [
        (Image.open(p.file).getpixel((0, 0))[0], p.boxes[:, 2].round().astype(int).tolist())  # type: ignore[index]
        for p in examined.splits["train"].pictures
    ]


def test_equal_names_in_folders_of_one_root_are_different_pictures(tmp_path: Path) -> None:
    for level, camera in ((10, "cam1"), (20, "cam2")):
        pair(tmp_path, f"{camera}/a", level)
    write(tmp_path / "data.yaml", "train: images\nnames: [red]\n")
    examined = check(tmp_path)
    assert not examined.errors and levels(examined) == [(10, [10]), (20, [20])]


@pytest.mark.parametrize("root", ["", "path: .\n", "path: {0}\n"])
def test_each_of_several_roots_keeps_its_labels(tmp_path: Path, root: str) -> None:
    place = tmp_path / "sites"
    pair(place / "siteA", "a", 10)
    pair(place / "siteB", "a", 20)
    pair(place, "a", 30)  # of the same name, and named by nobody
    draw(place / "a.png", 40)
    text = root.format(place) + "train: [siteB/images, siteA/images]\nnames: [red]\n"
    write(place / "data.yaml", text)
    examined = check(place)
    assert not examined.errors and levels(examined) == [(20, [20]), (10, [10])]
    names = [f.code for f in examined.findings]
    assert "label-without-picture" not in names and "yaml-leads-out" not in names


def test_of_a_list_the_picture_that_it_names_is_taken(tmp_path: Path) -> None:
    pair(tmp_path / "lists" / "deep", "a", 10)
    draw(tmp_path / "images" / "a.png", 20)
    draw(tmp_path / "a.png", 30)
    write(tmp_path / "lists" / "train.txt", "./deep/images/a.png\n")
    write(tmp_path / "data.yaml", "train: lists/train.txt\nnames: [red]\n")
    assert levels(check(tmp_path)) == [(10, [10])]


@pytest.mark.parametrize("linked", ["images", "images/a.png", "labels", "labels/a.txt"])
def test_labels_are_those_beside_the_link_not_beside_its_target(
    tmp_path: Path, linked: str
) -> None:
    """Two labellings of one folder, whose labels are older."""
    pair(tmp_path, "a", 10)
    write(tmp_path / "labels" / "a.txt", row(90))
    write(tmp_path / "new" / "a.txt", row(20))
    task = tmp_path / "task"
    for name, target in (("images", tmp_path / "images"), ("labels", tmp_path / "new")):
        if linked.startswith(name) and "/" in linked:
            (task / name).mkdir(parents=True)
            for file in target.iterdir():
                (task / name / file.name).symlink_to(file)
        else:
            task.mkdir(exist_ok=True)
            (task / name).symlink_to(target)
    write(task / "data.yaml", "train: images\nnames: [red]\n")
    data = find_layout(task).model_copy(update={"allow": ["link-outside"]})
    assert levels(examine(data, tmp_path)) == [(10, [20])]


def test_a_link_to_a_data_yaml_is_of_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    pair(tmp_path, "a", 10)
    pair(tmp_path / "task", "a", 20)
    write(tmp_path / "data.yaml", "train: images\nnames: [red]\n")
    (tmp_path / "task" / "data.yaml").symlink_to("../data.yaml")
    assert levels(check(tmp_path / "task")) == [(20, [20])]


def test_a_linked_folder_below_is_read_and_reported_where_it_leads_out(tmp_path: Path) -> None:
    draw(tmp_path / "store" / "a.png", 10)
    write(tmp_path / "set" / "labels" / "cam" / "a.txt", row(10))
    (tmp_path / "set" / "images").mkdir()
    (tmp_path / "set" / "images" / "cam").symlink_to(tmp_path / "store")
    write(tmp_path / "set" / "data.yaml", "train: images\nnames: [red]\n")
    assert codes(tmp_path / "set") == {"link-outside"}
    data = find_layout(tmp_path / "set").model_copy(update={"allow": ["link-outside"]})
    assert levels(examine(data, tmp_path)) == [(10, [10])]


def test_two_pictures_of_one_label_file_are_reported(tmp_path: Path) -> None:
    pair(tmp_path, "a", 10)
    draw(tmp_path / "images" / "a.jpg", 20)
    write(tmp_path / "data.yaml", "train: images\nnames: [red]\n")
    (finding,) = check(tmp_path).errors
    assert finding.code == "label-twice"
    assert str(finding.places[0]).endswith("has labels/a.txt, as images/a.jpg has")


@pytest.mark.parametrize("listed", [True, False])
def test_accents_may_be_written_either_way(tmp_path: Path, listed: bool) -> None:
    one, other = normalize("NFC", "é"), normalize("NFD", "é")
    draw(tmp_path / "images" / f"{other}.png", 10)
    write(tmp_path / "labels" / f"{one}.txt", row(10))
    write(tmp_path / "list.txt", f"images/{one}.png\n")
    train = "list.txt" if listed else "images"
    write(tmp_path / "data.yaml", f"train: {train}\nnames: [red]\n")
    assert levels(check(tmp_path)) == [(10, [10])]


def test_a_picture_listed_twice_is_reported_however_it_is_written(tmp_path: Path) -> None:
    pair(tmp_path, "a", 10)
    write(tmp_path / "list.txt", "images/a.png\n./images/../images/a.png\n")
    write(tmp_path / "data.yaml", "train: list.txt\nnames: [red]\n")
    assert "file-twice" in codes(tmp_path)


def test_what_begins_with_a_dot_is_no_part(place: Path) -> None:
    for name in ("._a", ".ipynb_checkpoints/a-checkpoint"):
        draw(place / "train" / "images" / f"{name}.png", 10)
        write(place / "train" / "labels" / f"{name}.txt", row(10))
    examined = check(place)
    assert examined.counts["train"] == {"pictures": 1, "boxes": 2}
    assert "label-without-picture" not in {f.code for f in examined.findings}


@pytest.mark.parametrize(
    "line", ["/etc/hostname", "../../../etc/hostname", "../outside.png", "/nowhere/a.png"]
)
def test_every_line_of_a_list_that_leads_out_is_reported(place: Path, line: str) -> None:
    draw(place.parent / "outside.png", 10)
    write(place / "list.txt", f"train/images/a.png\n{line}\n")
    write(place / "data.yaml", YAML + "train: list.txt\nval: valid/images\n")
    assert "path-outside" in codes(place)


@pytest.mark.parametrize("named", ["real", "link"])
@pytest.mark.parametrize("listed", ["real", "link"])
def test_a_list_may_name_the_folder_otherwise(tmp_path: Path, named: str, listed: str) -> None:
    pair(tmp_path / "real", "a", 10)
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "real" / "list.txt", f"{tmp_path}/{listed}/images/a.png\n")
    write(tmp_path / "real" / "data.yaml", "train: list.txt\nnames: [red]\n")
    examined = check(tmp_path / named)
    assert not examined.errors and levels(examined) == [(10, [10])]


def secret(place: Path) -> Path:
    """A file of somebody else's."""
    file = place.parent / "passwd"
    file.write_text("root:x:0:0:hunter2\nhunter2: hunter2\n- hunter2 [\n0 hunter2\n1.5 2 hunter2\n")
    return file


def test_no_word_of_a_foreign_list_is_reported(place: Path) -> None:
    secret(place)
    for text in ("train: ../passwd", "path: ..\ntrain: passwd", "train: list.txt"):
        (place / "list.txt").unlink(missing_ok=True)
        (place / "list.txt").symlink_to("../passwd")
        write(place / "data.yaml", f"{text}\n{YAML}")
        examined = check(place)
        assert examined.errors and "hunter2" not in str(examined)
        assert "passwd line 1" in str(examined) or "list.txt line 1" in str(examined)


def test_no_word_of_a_foreign_label_file_is_reported(place: Path) -> None:
    label = place / "train" / "labels" / "a.txt"
    label.unlink()
    label.symlink_to(secret(place))
    examined = check(place)
    assert examined.errors and "hunter2" not in str(examined)


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e30", "nan"])
@pytest.mark.parametrize("column", range(5))
def test_no_number_is_too_long(place: Path, number: str, column: int) -> None:
    words = ["0", "0.5", "0.5", "0.2", "0.2"]
    words[column] = number
    add(place / "train", "c", " ".join(words))
    add(place / "train", "d", "0 0.5 0.5 0.2 0.2\n" * 5)
    examined = check(place)
    assert any(f.code.startswith(("box-", "unknown-category")) for f in examined.errors)
    assert all(len(f.line) < 1000 for f in examined.findings)
    for picture in examined.splits["train"].pictures:
        assert (abs(picture.boxes) < 1e40).all()


def test_a_path_of_thousands_of_letters_is_missing(place: Path) -> None:
    write(place / "list.txt", "a" * 5000 + ".png\ntrain/images/a.png\n/\n.\n\0.png\n/\0/a.png\n")
    write(place / "data.yaml", "train: list.txt\n" + YAML)
    assert {"picture-missing", "path-outside"} <= codes(place)
    write(place / "data.yaml", f"train: {'a' * 5000}\n" + YAML)
    assert codes(place) == {"file-missing"}


@pytest.mark.parametrize("more", [" 0.91", " 0.91 1", " 0.91 17", " 0.5 0.5 2 0.4 0.4 1"])
def test_rows_of_another_task_are_reported_and_their_polygons_are_not(
    place: Path, more: str
) -> None:
    add(place / "train", "a", f"0 0.5 0.5 0.25 0.5{more}\n1 0.25 0.5 0.1 0.1\n")
    finding = next(f for f in check(place).errors if f.code == "rows-of-another-task")
    assert finding.count == 1 and "keypoints" in finding.line
    corners = "0 0.2 0.2 0.4 0.2 0.4 0.6 0.2 0.6\n"
    add(place / "train", "c", corners * 2)
    assert "rows-of-another-task" not in codes(place)
