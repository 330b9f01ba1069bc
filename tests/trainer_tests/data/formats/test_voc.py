"""Pascal VOC in its layouts, and the same boxes as COCO."""

import re
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.config import Data, InputError
from trainer.data.checks.examine import examine
from trainer.data.dataset import Split, Splits
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load

BCCD = Path(__file__).parents[5] / "shared" / "data" / "bccd"
BOX = "<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>"


def write(file: Path, *things: tuple[str, int, int, int, int], extra: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name>{extra}{BOX.format(*box)}</object>" for name, *box in things
    )
    size = "<size><width>40</width><height>30</height></size>"
    stale = "<filename>somewhere/else.png</filename>"
    file.write_text(f"<annotation>{stale}{size}{objects}</annotation>")


def draw(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    level = sum(map(ord, str(file.name)))
    Image.new("RGB", (40, 30), (level % 256, level // 256, len(file.name))).save(file)


def boxes(split: Split) -> dict[str, list[tuple[str, list[float]]]]:
    names = [category.name for category in split.categories]
    return {
        p.file.name: [(names[n - 1], b) for n, b in zip(p.labels, p.boxes.tolist(), strict=True)]
        for p in split.pictures
    }


def read(place: Path, cache: Path) -> Splits:
    return load(find_layout(place), cache)


@pytest.mark.parametrize("pictures", ["JPEGImages", "images", "../images"])
def test_image_sets_with_annotations_and_pictures(tmp_path: Path, pictures: str) -> None:
    place = tmp_path / "voc"
    sets = place / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    for split, stem in (("train", "a"), ("val", "b")):
        write(place / "Annotations" / f"{stem}.xml", ("cat", 1, 2, 11, 22), ("ant", 3, 4, 9, 9))
        draw(place / pictures / f"{stem}.png")
        (sets / f"{split}.txt").write_text(f"{stem}\n")
    splits = read(place, tmp_path)
    assert [(c.id, c.name) for c in splits.categories] == [(1, "ant"), (2, "cat")]
    assert boxes(splits.train) == {"a.png": [("cat", [1, 2, 10, 20]), ("ant", [3, 4, 6, 5])]}
    assert list(boxes(splits.val)) == ["b.png"]


def test_a_list_that_is_no_text_is_reported(tmp_path: Path) -> None:
    sets = tmp_path / "voc" / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_bytes("é\n".encode("latin-1"))
    write(tmp_path / "voc" / "Annotations" / "a.xml", ("cat", 1, 2, 11, 22))
    with pytest.raises(InputError, match="without a label file"):
        read(tmp_path / "voc", tmp_path)


def test_xml_files_beside_their_pictures(tmp_path: Path) -> None:
    for folder, stem in (("train", "a"), ("valid", "b")):
        write(tmp_path / folder / f"{stem}.xml", ("cat", 1, 2, 11, 22))
        draw(tmp_path / folder / f"{stem}.jpg")
    splits = read(tmp_path, tmp_path)
    assert (list(boxes(splits.train)), list(boxes(splits.val))) == (["a.jpg"], ["b.jpg"])
    for stem in ("c", "d"):
        write(tmp_path / "flat" / f"{stem}.xml", ("cat", 1, 2, 11, 22))
        draw(tmp_path / "flat" / f"{stem}.png")
    assert read(tmp_path / "flat", tmp_path).val_is_from_train


def test_what_is_wrong_is_reported_with_the_file(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.xml", ("cat", 5, 5, 5, 9))
    draw(tmp_path / "train" / "a.png")
    with pytest.raises(InputError, match=r"box-empty: .*annotation a\.xml object 1 of image 1"):
        load(Data(train=tmp_path / "train"), tmp_path)
    (tmp_path / "train" / "b.xml").write_text("<annotation>")
    with pytest.raises(InputError, match=r"file-unreadable: .*b\.xml"):
        load(Data(train=tmp_path / "train"), tmp_path)


def voc(place: Path, stem: str, width: int) -> None:
    """A picture and its xml of an image set, whose box tells of which picture it is."""
    write(place / "Annotations" / f"{stem}.xml", ("cat", 1, 1, width + 1, 9))
    draw(place / "JPEGImages" / f"{stem}.png")


def listed(place: Path, *stems: str) -> Path:
    """The image set of these stems."""
    file = place / "ImageSets" / "Main" / "train.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{stem}\n" for stem in stems))
    return file


def widths(place: Path, cache: Path) -> dict[str, list[float]]:
    split = examine(find_layout(place), cache).splits["train"]
    return {
        str(p.file.relative_to(place / "JPEGImages")): p.boxes[:, 2].tolist()
        for p in split.pictures
    }


def test_equal_names_in_folders_are_different_pictures(tmp_path: Path) -> None:
    for width, camera in ((10, "cam1"), (20, "cam2")):
        voc(tmp_path, f"{camera}/a", width)
    voc(tmp_path, "a", 30)
    listed(tmp_path, "cam2/a", "cam1/a")
    assert widths(tmp_path, tmp_path) == {"cam2/a.png": [20], "cam1/a.png": [10]}


def test_annotations_are_those_beside_a_linked_image_set(tmp_path: Path) -> None:
    voc(tmp_path, "a", 10)
    listed(tmp_path, "a")
    task = tmp_path / "task"
    write(task / "Annotations" / "a.xml", ("cat", 1, 1, 21, 9))
    for name in ("ImageSets", "JPEGImages"):
        (task / name).symlink_to(f"../{name}")
    assert widths(task, tmp_path) == {"a.png": [20]}


@pytest.mark.parametrize(
    ("filename", "is_reported"),
    [
        ("b.png", True),
        ("folder/b.png", True),
        ("a.png", False),
        ("a.jpg", False),
        ("gone.png", False),
        ("b", False),
        ("", False),
        ("/b.png", False),
    ],
)
def test_a_filename_of_another_picture_is_a_warning(
    tmp_path: Path, filename: str, is_reported: bool
) -> None:
    for stem in ("a", "b"):
        write(tmp_path / f"{stem}.xml", ("cat", 1, 2, 11, 22))
        draw(tmp_path / f"{stem}.png")
    text = (tmp_path / "a.xml").read_text().replace("somewhere/else.png", filename)
    (tmp_path / "a.xml").write_text(text)
    result = examine(find_layout(tmp_path), tmp_path)
    assert not result.errors and [len(p.boxes) for p in result.splits["train"].pictures] == [1, 1]
    places = [str(f.places[0]) for f in result.findings if f.code == "xml-of-other-picture"]
    detail = "image 1 (a.xml): filename is b.png, taken for a.png"
    assert places == ([detail] if is_reported else [])


def test_what_begins_with_a_dot_is_no_part(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", ("cat", 1, 2, 11, 22))
    draw(tmp_path / "a.png")
    for name in ("._a.xml", "._a.png"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    examined = examine(find_layout(tmp_path), tmp_path)
    assert not examined.errors and examined.counts["train"] == {"pictures": 1, "boxes": 1}


@pytest.mark.parametrize("stem", ["../../secret", "{0}/secret", "a/../../../secret", "..\\secret"])
def test_stems_that_lead_out_are_reported_and_left_out(tmp_path: Path, stem: str) -> None:
    place = tmp_path / "voc"
    voc(place, "a", 10)
    write(tmp_path / "secret.xml", ("hunter2", 1, 1, 9, 9))
    listed(place, "a", stem.format(tmp_path))
    examined = examine(find_layout(place), tmp_path)
    assert [f.code for f in examined.errors] == ["path-outside"]
    assert str(examined.errors[0].places[0]) == "train.txt line 2"
    assert "hunter2" not in str(examined) and len(examined.splits["train"].pictures) == 1


def test_no_word_of_a_foreign_file_is_reported(tmp_path: Path) -> None:
    place = tmp_path / "voc"
    voc(place, "a", 10)
    (tmp_path / "passwd").write_text("root:hunter2\n<a>&hunter2;</a>\n")
    (place / "Annotations" / "b.xml").symlink_to(tmp_path / "passwd")
    (place / "Annotations" / "c.xml").write_text("<a>&hunter2;</a>")
    listed(place, "b", "c")
    examined = examine(find_layout(place), tmp_path)
    assert {f.code for f in examined.errors} == {"file-unreadable"}
    assert "hunter2" not in str(examined)
    listed(place).unlink()
    (place / "ImageSets" / "Main" / "train.txt").symlink_to(tmp_path / "passwd")
    examined = examine(find_layout(place), tmp_path)
    assert examined.errors and "hunter2" not in str(examined)


LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 9}">' for i in range(1, 12))


@pytest.mark.parametrize(
    "content",
    [
        f'<!DOCTYPE a [<!ENTITY a0 "x">{LAUGHS}]><annotation>&a11;</annotation>'.encode(),
        f'<!DOCTYPE a [<!ENTITY a0 "x">{LAUGHS}]><annotation>&a11;</annotation>'.encode("utf-16"),
        b'<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>',
        b'<?xml version="1.0" encoding="gbk"?><annotation/>',
        b'<?xml version="1.0" encoding="none"?><annotation/>',
        b"<annotation><name>\xff</name></annotation>",
        b"",
    ],
)
def test_xml_that_is_no_vocs_is_reported_at_once(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    draw(tmp_path / "a.png")
    (finding,) = examine(find_layout(tmp_path), tmp_path).errors
    assert finding.code == "file-unreadable" and finding.places[0].file == "a.xml"


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "nan"])
@pytest.mark.parametrize("of", ["xmin", "ymax", "width"])
def test_no_number_is_too_long(tmp_path: Path, number: str, of: str) -> None:
    for stem in "abcdef":
        write(tmp_path / f"{stem}.xml", ("cat", 1, 2, 11, 22))
        draw(tmp_path / f"{stem}.png")
    text = (tmp_path / "a.xml").read_text()
    tag = re.sub(f"<{of}>.*?</{of}>", f"<{of}>{number}</{of}>", text)
    (tmp_path / "a.xml").write_text(tag)
    examined = examine(find_layout(tmp_path), tmp_path)
    assert {f.code.partition("-")[0] for f in examined.errors} <= {"box", "field", "size"}
    assert examined.errors and all(len(f.line) < 1000 for f in examined.findings)


@pytest.mark.parametrize("said", ["", "0", "1", "true", "False"])
def test_difficult_is_a_flag(tmp_path: Path, said: str) -> None:
    for stem in ("a", "b"):
        extra = f"<difficult>{said}</difficult>"
        write(tmp_path / "train" / f"{stem}.xml", ("cat", 1, 2, 11, 22), extra=extra)
        draw(tmp_path / "train" / f"{stem}.png")
    result = examine(Data(train=tmp_path / "train"), tmp_path)
    assert not result.errors
    assert ("difficult" in [f.code for f in result.findings]) == (said in {"1", "true"})


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("<width>40</width>", "<width>forty</width>", "width is 'forty'"),
        ("<name>cat", "<difficult>often</difficult><name>cat", "difficult is 'often'"),
    ],
)
def test_a_field_of_the_wrong_type_is_an_error(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    file = tmp_path / "train" / "a.xml"
    write(file, ("cat", 1, 2, 11, 22))
    draw(file.with_suffix(".png"))
    file.write_text(file.read_text().replace(right, wrong))
    (error,) = examine(Data(train=tmp_path / "train"), tmp_path).errors
    assert error.code == "field-malformed" and message in error.line and "a." in error.line


@pytest.mark.skipif(not BCCD.is_dir(), reason="needs the BCCD data set")
def test_bccd_as_voc_is_bccd_as_coco_but_for_two_boxes_of_no_size(tmp_path: Path) -> None:
    coco = read(BCCD, tmp_path)
    with pytest.raises(InputError) as raised:
        read(BCCD / "voc", tmp_path)
    assert [line.split(": ")[1] for line in raised.value.errors] == ["box-empty", "box-empty"]
    data = find_layout(BCCD / "voc").model_copy(update={"allow": ["box-empty"]})
    voc = load(data, tmp_path)
    assert voc.categories == coco.categories
    for one, other in ((voc.train, coco.train), (voc.val, coco.val), (voc.test, coco.test)):
        assert one and other and boxes(one) == boxes(other)


def test_an_image_set_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = tmp_path / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    for split, stem in (("train", "a"), ("val", "b")):
        write(tmp_path / "Annotations" / f"{stem}.xml", ("cat", 1, 2, 11, 22))
        draw(tmp_path / "JPEGImages" / f"{stem}.png")
        (sets / f"{split}.txt").write_text(f"{stem}\n")
    data = find_layout(tmp_path)
    read_text = Path.read_text

    def refuse(file: Path, *settings: Any, **more: Any) -> str:
        if file.name == "train.txt":  # tests may run as root, which may read everything
            raise PermissionError(EACCES, "Permission denied", str(file))
        return read_text(file, *settings, **more)

    monkeypatch.setattr(Path, "read_text", refuse)
    examined = examine(data, tmp_path)
    (error,) = (finding.line for finding in examined.errors)
    assert error.startswith("data.train: file-unreadable: ")
    assert error.partition("train.txt")[2].startswith(": Permission denied")
    assert list(examined.splits) == ["val"]
