"""Every row of what data sets have wrong: made, told with code and place, and left untouched."""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.commands.cli import main
from search.space.data import data_errors
from trainer.data.findings import CODES, SHOWN, allowable

Coco = dict[str, Any]
Spoil = Callable[[Path], Any]
Captured = pytest.CaptureFixture[str]
SIZE = (40, 30)
COUNTS = {"train": 12, "val": 8}


def pixels(name: str, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)


def picture(name: str, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(pixels(name, size))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A sound COCO data set; image 3 is `train-3.png`, annotations 6 and 7 are on it."""
    place = tmp_path / "data set, naïve 数"
    (place / "images").mkdir(parents=True)
    for split, count in COUNTS.items():
        images = []
        annotations = []
        for i in range(count):
            name = f"{split}-{i}.png"
            picture(name).save(place / "images" / name)
            images.append({"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            for category in (0, 90):
                box = [2 + i, 3, 10 + category / 10, 12]
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": i,
                        "category_id": category,
                        "bbox": box,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": 0, "name": "red"}, {"id": 90, "name": "blue"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (place / f"{split}.json").write_text(json.dumps(content))
    return place


def tree(place: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def checked(place: Path, capsys: Captured, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit status and report of `unfreeze check --json`, which leaves every byte as it was."""
    before = tree(place)
    capsys.readouterr()
    status = main(["check", str(place), "--json", *more])
    assert tree(place) == before
    return status, json.loads(capsys.readouterr().out)


def codes(report: dict[str, Any], severity: str = "error") -> list[str]:
    return [f["code"] for f in report["findings"] if f["severity"] == severity]


# -- ways to spoil it -----------------------------------------------------------------------------


def edit(change: Callable[[Coco], Any], split: str = "train") -> Spoil:
    def spoil(place: Path) -> None:
        file = place / f"{split}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def with_box(*box: Any) -> Spoil:
    return edit(lambda c: c["annotations"][7].update(bbox=list(box)))


def with_image(**fields: Any) -> Spoil:
    return edit(lambda c: c["images"][3].update(**fields))


def every_box(change: Callable[[list[float]], list[float]]) -> Spoil:
    return edit(lambda c: [a.update(bbox=change(a["bbox"])) for a in c["annotations"]])


def with_file(content: bytes) -> Spoil:
    return lambda place: (place / "images" / "train-3.png").write_bytes(content)


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> Spoil:
    return lambda place: image.save(place / "images" / "train-3.png", format, **options)


def with_text(content: bytes) -> Spoil:
    return lambda place: (place / "train.json").write_bytes(content)


def encoded(encoding: str) -> Spoil:
    return lambda place: (place / "train.json").write_bytes(
        (place / "train.json").read_text().encode(encoding)
    )


def both(*spoils: Spoil) -> Spoil:
    return lambda place: [spoil(place) for spoil in spoils]


def to_far_corners(box: list[float]) -> list[float]:
    x, y, width, height = box[0] + 6, box[1] + 8, box[2], box[3]
    return [x, y, x + width, y + height]


def with_a_class_in_val_alone(place: Path) -> None:
    for split in COUNTS:
        edit(lambda c: c["categories"].append({"id": 7, "name": "green"}), split)(place)
    edit(lambda c: c["annotations"][0].update(category_id=7), "val")(place)


def cut(format: str) -> Spoil:
    def spoil(place: Path) -> None:
        file = place / "images" / "train-3.png"
        picture("cut", (200, 150)).resize(SIZE).save(file, format)
        file.write_bytes(file.read_bytes()[:-400])

    return spoil


def with_a_flipped_bit(place: Path) -> None:
    file = place / "images" / "train-3.png"
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 1
    file.write_bytes(content)


def with_a_link(place: Path) -> None:
    (place / "images" / "train-3.png").rename(place.parent / "elsewhere.png")
    (place / "images" / "train-3.png").symlink_to(place.parent / "elsewhere.png")


def huge() -> bytes:
    """A PNG that says it has 40,000 x 40,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


E3 = {"image": 3, "file": "train-3.png"}
A7 = {**E3, "annotation": 7}
ROWS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
    ("B1", "picture-missing", lambda p: (p / "images/train-3.png").unlink(), E3),
    (
        "B4",
        "unknown-image",
        edit(lambda c: c["annotations"][7].update(image_id=77)),
        {"annotation": 7, "image": 77},
    ),
    ("B5", "picture-empty", with_file(b""), E3),
    ("B6", "picture-truncated", cut("JPEG"), E3),
    ("B6 PNG", "picture-truncated", cut("PNG"), E3),
    ("B7", "picture-unreadable", with_a_flipped_bit, E3),
    ("B7 html", "picture-unreadable", with_file(b"<html>not found</html>"), E3),
    ("B9", "picture-tiny", both(saved(picture("b", (40, 9))), with_image(height=9)), E3),
    ("B10", "picture-huge", with_file(huge()), E3),
    ("B11", "size-unturned", saved(picture("b"), exif=exif(6)), E3),
    ("B12", "size-wrong", with_image(width=80, height=60), E3),
    (
        "B12 swapped",
        "size-wrong",
        with_image(width=30, height=40),
        {**E3, "detail": "declared 30 x 40, is 40 x 30 (swapped)"},
    ),
    (
        "B14 NaN",
        "pixels-not-finite",
        saved(Image.fromarray(np.full(SIZE[::-1], np.nan, np.float32)), "TIFF"),
        E3,
    ),
    ("B18", "box-empty", with_box(1, 2, 0, 4), A7),
    ("B19", "box-negative", with_box(10, 10, -4, 4), A7),
    ("B20 mostly", "box-mostly-outside", with_box(-18, 2, 20, 10), A7),
    ("B21", "box-outside", with_box(50, 2, 10, 10), A7),
    ("B22 NaN", "box-not-finite", with_box(1, float("nan"), 3, 4), A7),
    ("B22 inf", "box-not-finite", with_box(1, 2, float("inf"), 4), A7),
    (
        "B23",
        "boxes-normalised",
        every_box(lambda b: [b[0] / 40, b[1] / 30, b[2] / 40, b[3] / 30]),
        {},
    ),
    ("B24", "boxes-are-corners", every_box(to_far_corners), {}),
    ("B25", "box-malformed", with_box(1, 2, 3), A7),
    ("B25 strings", "box-malformed", with_box("1", "2", "3", "4"), A7),
    ("B25 null", "box-malformed", edit(lambda c: c["annotations"][7].update(bbox=None)), A7),
    (
        "B26 bbox",
        "field-missing",
        edit(lambda c: c["annotations"][7].pop("bbox")),
        {"detail": "annotations[7] (id 7) has no bbox"},
    ),
    (
        "B26 category_id",
        "field-missing",
        edit(lambda c: c["annotations"][7].pop("category_id")),
        {},
    ),
    ("B26 image_id", "field-missing", edit(lambda c: c["annotations"][7].pop("image_id")), {}),
    (
        "B26 id",
        "field-missing",
        edit(lambda c: c["images"][3].pop("id")),
        {"detail": "images[3] has no id"},
    ),
    ("B26 name", "field-missing", edit(lambda c: c["categories"][1].pop("name")), {}),
    ("B26 type", "field-malformed", with_image(id="three"), {}),
    (
        "B27",
        "unknown-category",
        edit(lambda c: c["annotations"][7].update(category_id=5)),
        {**A7, "detail": "category 5"},
    ),
    ("B29 image", "image-id-twice", with_image(id=2), {"image": 2, "file": "train-3.png"}),
    (
        "B29 annotation",
        "annotation-id-twice",
        edit(lambda c: c["annotations"][7].update(id=2)),
        {"annotation": 2},
    ),
    (
        "B29 category",
        "category-id-twice",
        edit(lambda c: c["categories"].append({"id": 0, "name": "x"})),
        {},
    ),
    (
        "B30",
        "category-name-twice",
        edit(lambda c: c["categories"].append({"id": 5, "name": "red"})),
        {},
    ),
    ("B31", "file-twice", with_image(file_name="train-2.png"), {"image": 3}),
    (
        "B31 case",
        "file-twice",
        both(
            with_image(file_name="TRAIN-2.png"),
            lambda p: picture("n").save(p / "images/TRAIN-2.png"),
        ),
        {"image": 3},
    ),
    (
        "B33",
        "same-picture-in-splits",
        lambda p: (p / "images/val-5.png").write_bytes((p / "images/train-3.png").read_bytes()),
        {"image": 5, "file": "val-5.png", "detail": "is train-3.png of train"},
    ),
    ("B35", "class-untrained", with_a_class_in_val_alone, {"detail": "green (1 boxes)"}),
    ("B37 empty", "split-empty", edit(lambda c: c.update(images=[], annotations=[])), {}),
    ("B37 no boxes", "split-without-boxes", edit(lambda c: c.update(annotations=[])), {}),
    (
        "B37 crowds",
        "split-without-boxes",
        edit(lambda c: [a.update(iscrowd=1) for a in c["annotations"]]),
        {},
    ),
    (
        "B38 all of a class",
        "crowds-many",
        edit(lambda c: [a.update(iscrowd=a["category_id"] // 90) for a in c["annotations"]]),
        {"detail": "blue: 12 of 12 boxes"},
    ),
    (
        "B26 flag",
        "field-malformed",
        edit(lambda c: [a.update(iscrowd="0") for a in c["annotations"]]),
        {"detail": "annotations[0] (id 0): iscrowd is '0'"},
    ),
    ("B26 size", "field-malformed", with_image(width="40"), {"file": "train-3.png"}),
    (
        "B37 twice",
        "split-twice",
        lambda p: (p / "val.json").write_text((p / "train.json").read_text()),
        {},
    ),
    (
        "B40",
        "file-unreadable",
        with_text(b'{"images": [\n{]'),
        {"detail": "line 2, column 2: Expecting property name enclosed in double quotes"},
    ),
    ("B40 empty", "file-unreadable", with_text(b""), {}),
    ("B40 utf-16", "file-unreadable", encoded("utf-16"), {}),
    (
        "B40 deep",
        "file-unreadable",
        with_text(b'{"info": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        {"detail": "is nested too deep"},
    ),
    ("B40 latin", "file-unreadable", with_text(b'{"images": ["\xe9"]}'), {}),
    ("B40 type", "file-unreadable", with_text(b"[]"), {}),
    ("B41 absolute", "path-outside", with_image(file_name="/etc/hostname"), {"image": 3}),
    ("B41 above", "path-outside", with_image(file_name="../train.json"), {"image": 3}),
    ("B41 URL", "path-outside", with_image(file_name="https://example.org/a.png"), {"image": 3}),
    ("B41 link", "link-outside", with_a_link, E3),
]
MILD: list[tuple[str, str, Spoil, str]] = [
    (
        "B3",
        "without-boxes",
        edit(
            lambda c: [
                c["annotations"].pop(6),
                c["annotations"].pop(6),
                c["annotations"].extend(
                    dict(a, id=99 + i) for i, a in enumerate(c["annotations"][:2])
                ),
            ]
        ),
        "note",
    ),
    ("B8", "picture-extension", saved(picture("b"), "JPEG"), "warning"),
    (
        "B11 upright",
        "picture-turned",
        both(
            saved(picture("b"), exif=exif(6)),
            with_image(width=30, height=40),
            with_box(1, 2, 10, 10),
        ),
        "note",
    ),
    ("B13 L", "pixels-grey", saved(picture("b").convert("L")), "note"),
    ("B13 1", "pixels-grey", saved(picture("b").convert("1")), "note"),
    ("B13 P", "pixels-grey", saved(picture("b").convert("P")), "note"),
    ("B14", "pixels-deep", saved(Image.fromarray(np.full(SIZE[::-1], 999, np.uint16))), "warning"),
    (
        "B14 float",
        "pixels-deep",
        saved(Image.fromarray(np.full(SIZE[::-1], 0.5, np.float32)), "TIFF"),
        "warning",
    ),
    ("B15", "pixels-transparent", saved(picture("b").convert("RGBA")), "warning"),
    ("B15 LA", "pixels-transparent", saved(picture("b").convert("LA")), "warning"),
    ("B16", "pixels-cmyk", saved(picture("b").convert("CMYK"), "JPEG"), "warning"),
    (
        "B17 GIF",
        "pixels-frames",
        saved(picture("b"), "GIF", save_all=True, append_images=[picture("c")]),
        "warning",
    ),
    (
        "B17 TIFF",
        "pixels-frames",
        saved(picture("b"), "TIFF", save_all=True, append_images=[picture("c")]),
        "warning",
    ),
    (
        "B17 MPO",
        "pixels-frames",
        saved(picture("b"), "MPO", save_all=True, append_images=[picture("c")]),
        "warning",
    ),
    ("B20", "box-partly-outside", with_box(30, 2, 15, 10), "warning"),
    (
        "B30 case",
        "category-name-similar",
        edit(lambda c: c["categories"].append({"id": 5, "name": "Red "})),
        "warning",
    ),
    (
        "B35 rare",
        "class-rare",
        both(*(edit(lambda c: c["categories"].append({"id": 5, "name": "x"}), s) for s in COUNTS)),
        "warning",
    ),
    (
        "B35 val",
        "class-unmeasured",
        edit(lambda c: [a.update(category_id=0) for a in c["annotations"]], "val"),
        "warning",
    ),
    (
        "B38",
        "crowds",
        edit(lambda c: c["annotations"].append({**c["annotations"][7], "id": 99, "iscrowd": 1})),
        "note",
    ),
    (
        "B38 ignored",
        "ignored",
        edit(lambda c: [a.update(ignore=a["id"] % 2) for a in c["annotations"][:12]]),
        "warning",
    ),
    (
        "B32",
        "box-twice",
        edit(lambda c: c["annotations"].append({**c["annotations"][7], "id": 99})),
        "warning",
    ),
    (
        "B33 in one split",
        "picture-twice",
        lambda p: (p / "images/train-5.png").write_bytes((p / "images/train-3.png").read_bytes()),
        "warning",
    ),
    (
        "B43",
        "split-small",
        edit(lambda c: c.update(images=c["images"][:5], annotations=c["annotations"][:10])),
        "warning",
    ),
]


# -- the rows -------------------------------------------------------------------------------------


def test_a_sound_data_set_has_nothing_to_tell(place: Path, capsys: Captured) -> None:
    status, report = checked(place, capsys)
    assert (status, report["findings"], report["format"]) == (0, [], "COCO")
    assert report["splits"]["train"] == {"pictures": 12, "boxes": 24}
    # B28: ids with gaps and a 0; B42: a place of spaces and other scripts
    assert [c["id"] for c in report["categories"]] == [0, 90]


@pytest.mark.parametrize(("code", "spoil", "at"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_an_error_is_told_with_its_place(
    place: Path, capsys: Captured, code: str, spoil: Spoil, at: dict[str, Any]
) -> None:
    spoil(place)
    status, report = checked(place, capsys)
    assert status == 2
    found = next(f for f in report["findings"] if f["code"] == code)
    assert found["severity"] == "error"
    assert found["what"] and found["mend"] and found["count"] >= 1
    assert found["places"][0].items() >= at.items()


@pytest.mark.parametrize(
    ("code", "spoil", "severity"), [r[1:] for r in MILD], ids=[r[0] for r in MILD]
)
def test_what_is_no_error_is_told_and_does_not_stop(
    place: Path, capsys: Captured, code: str, spoil: Spoil, severity: str
) -> None:
    spoil(place)
    status, report = checked(place, capsys)
    assert (status, codes(report)) == (0, [])
    assert code in codes(report, severity)


@pytest.mark.parametrize(
    ("code", "spoil"),
    [(r[1], r[2]) for r in ROWS if r[1] in allowable()],
    ids=[r[0] for r in ROWS if r[1] in allowable()],
)
def test_an_error_that_is_allowed_is_none(
    place: Path, capsys: Captured, code: str, spoil: Spoil
) -> None:
    spoil(place)
    _, report = checked(place, capsys, "--allow", code)
    found = next(f for f in report["findings"] if f["code"] == code)
    assert found["severity"] == "warning"
    assert any("as allowed" in note for note in report["notes"])


def test_a_byte_order_mark_is_read_over(place: Path, capsys: Captured) -> None:
    encoded("utf-8-sig")(place)
    assert checked(place, capsys)[0] == 0


def test_only_what_does_no_harm_can_be_allowed(place: Path, capsys: Captured) -> None:
    assert main(["check", str(place), "--allow", "image-id-twice"]) == 2
    assert "data.allow: image-id-twice: cannot be allowed" in capsys.readouterr().err
    assert main(["check", str(place), "--allow", "box-emty"]) == 2
    assert "did you mean box-empty?" in capsys.readouterr().err


def test_the_first_ten_places_are_told_and_all_counted(place: Path, capsys: Captured) -> None:
    every_box(lambda b: [*b[:3], 0])(place)
    _, report = checked(place, capsys)
    found = next(f for f in report["findings"] if f["code"] == "box-empty")
    assert (found["count"], len(found["places"])) == (24, SHOWN)


def test_what_a_person_reads(place: Path, capsys: Captured) -> None:
    with_box(1, 2, 0, 4)(place)
    assert main(["check", str(place)]) == 2
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("COCO: train 12 pictures, 24 boxes; val 8")
    assert "error box-empty, train: boxes of no width or height" in lines
    assert "annotation 7 of image 3 (train-3.png): 1 2 0 4" in lines
    assert lines[-3] == "1 error, no warnings"
    assert lines[-1] == "--allow box-empty"


def test_annotations_alone_need_no_pictures(place: Path, capsys: Captured) -> None:
    for file in (place / "images").iterdir():
        file.unlink()
    assert checked(place, capsys, "--no-pictures")[0] == 0
    with_box(50, 2, 10, 10)(place)
    status, report = checked(place, capsys, "--no-pictures")
    assert (status, codes(report)) == (2, ["box-outside"])


def test_a_picture_of_the_data_is_drawn(place: Path, tmp_path: Path) -> None:
    with_box(1, 2, 0, 4)(place)  # also of one with errors
    main(["check", str(place), "--out", str(tmp_path / "new" / "out")])
    with Image.open(tmp_path / "new" / "out" / "data.png") as drawn:
        assert drawn.width == 1600
        assert drawn.convert("L").getextrema() == (0, 255)


def test_boxes_are_measured_on_the_canvas_of_a_yaml(
    place: Path, tmp_path: Path, capsys: Captured
) -> None:
    with_box(30, 2, 15, 1)(place)
    whole = tmp_path / "search.yaml"
    for model, is_told in ((None, False), ("{image_size: 64}", True), ("{image_size: 65}", False)):
        part = f"model: {model}\n" if model else ""
        whole.write_text(f"data: {{train: {json.dumps(str(place / 'train.json'))}}}\n{part}")
        _, report = checked(whole, capsys)
        assert ("box-vanishing" in codes(report, "warning")) == is_told


def test_what_is_wrong_is_drawn_below(place: Path, tmp_path: Path) -> None:
    heights = []
    for spoil in (lambda place: None, with_box(30, 2, 15, 10)):
        spoil(place)
        main(["check", str(place), "--out", str(tmp_path)])
        with Image.open(tmp_path / "data.png") as drawn:
            heights.append(drawn.height)
    assert heights[1] == heights[0] + 1600 // 5


@pytest.mark.parametrize("name", ["TRAIN-3.PNG", "images\\train-3.png", "images/train-3.png"])
def test_a_missing_picture_is_told_where_one_of_its_name_lies(
    place: Path, capsys: Captured, name: str
) -> None:
    with_image(file_name=name)(place)
    _, report = checked(place, capsys)
    found = next(f for f in report["findings"] if f["code"] == "picture-missing")
    assert found["places"][0]["detail"] == "there is train-3.png"


@pytest.mark.parametrize(
    ("where", "told"),
    [("photographs", "there is photographs/train-0.png"), ("../photographs", "no train-0.png in ")],
)
def test_where_no_picture_is_found_their_folder_is_asked_for(
    place: Path, capsys: Captured, where: str, told: str
) -> None:
    (place / "images").rename(place / where)
    status, report = checked(place, capsys)
    assert (status, set(codes(report))) == (2, {"pictures-elsewhere"})
    found = report["findings"][0]
    assert found["places"][0]["detail"].startswith(told)
    assert "data.images" in found["mend"]


def test_where_every_picture_has_another_name_each_is_told(place: Path, capsys: Captured) -> None:
    def rename(content: Coco) -> None:
        for image in content["images"]:
            image["file_name"] = image["file_name"].upper()

    edit(rename)(place)
    assert set(codes(checked(place, capsys)[1])) == {"picture-missing"}


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("images\\", "picture-missing"),
        ("../../media/upload/4/", "path-outside"),
        ("..\\..\\media\\", "path-outside"),
        ("C:\\data\\", "path-outside"),
        ("/home/me/", "path-outside"),
        ("https://example.org/b/", "path-outside"),
    ],
)
def test_names_of_another_machine_get_one_hint_and_no_silent_match(
    place: Path, capsys: Captured, before: str, code: str
) -> None:
    edit(lambda c: [i.update(file_name=before + i["file_name"]) for i in c["images"]])(place)
    status, report = checked(place, capsys)
    assert (status, codes(report)) == (2, [code])
    (finding,) = (f for f in report["findings"] if f["severity"] == "error")
    said = f"the last parts of these names are in {place / 'images'}/: write them relative to it"
    assert (finding["count"], finding["hint"]) == (12, f"{said}, as 'train-0.png'")
    assert main(["check", str(place)]) == 2
    assert capsys.readouterr().out.count("the last parts of these names are in") == 1


def test_names_with_percent_signs_get_the_hint_too(place: Path, capsys: Captured) -> None:
    (place / "images" / "train-3.png").rename(place / "images" / "train 3.png")
    with_image(file_name="train%203.png")(place)
    _, report = checked(place, capsys)
    assert codes(report) == ["picture-missing"]
    assert report["findings"][0]["hint"].endswith("relative to it, as 'train 3.png'")


@pytest.mark.parametrize(("stored", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_is_its_text_however_that_is_composed(
    place: Path, capsys: Captured, stored: Any, listed: Any
) -> None:
    names = [unicodedata.normalize(form, "Größe é.png") for form in (stored, listed)]
    (place / "images" / "train-3.png").rename(place / "images" / names[0])
    with_image(file_name=names[1])(place)
    assert checked(place, capsys)[0] == 0
    edit(lambda c: c["images"][4].update(file_name=names[0]))(place)
    assert codes(checked(place, capsys)[1]) == ["file-twice"]


def test_a_link_of_another_spelling_still_leads_out(place: Path, capsys: Captured) -> None:
    with_a_link(place)
    (place / "images" / "train-3.png").rename(place / "images" / "e\u0301.png")
    with_image(file_name="\u00e9.png")(place)
    assert codes(checked(place, capsys)[1]) == ["link-outside"]


def test_names_reach_the_terminal_without_escape_sequences(place: Path, capsys: Captured) -> None:
    edit(lambda c: c["categories"][0].update(name="red\x1b[2J"))(place)
    edit(lambda c: c["categories"][0].update(name="red\x1b[2J"), "val")(place)
    with_image(file_name="gone\x1b]0;x\x07.png")(place)
    assert main(["check", str(place)]) == 2
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "red\\x1b[2J" in said and "gone\\x1b]0;x\\x07.png" in said


def test_an_export_that_is_not_read_is_named(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.csv").write_text("filename,width\n")
    assert main(["check", str(tmp_path)]) == 2
    assert "is not read; export it as COCO" in capsys.readouterr().err


def test_nowhere_is_bad_input(tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "x.yaml").write_text("a: 1\n")
    assert main(["check", str(tmp_path / "x.yaml")]) == 2
    assert "has no data: part, and no names" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "names: [" + "9" * 5000 + "]\ntrain: .\n",
        "names: {" + "9" * 5000 + ": a}\ntrain: .\n",
        "names: [a]\nnc: " + "9" * 5000 + "\ntrain: .\n",
        "names: &a [*a]\ntrain: .\n",
        "a: &a [b]\n" + "".join(f"a{i}: &a [*a, *a, *a, *a]\n" for i in range(20)) + "names: *a\n",
        "names: " + "[" * 100,
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_yaml_without_bounds_is_bad_input(
    tmp_path: Path, capsys: Captured, text: str, named: bool
) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    assert main(["check", str(file if named else tmp_path)]) == 2
    said = capsys.readouterr()
    assert "data.yaml" in said.out + said.err and len(said.out + said.err) < 2000


def test_every_code_says_how_to_go_on() -> None:
    for code in CODES.values():
        assert code.what and (code.mend or code.severity == "note")
        assert not code.allowed or code.severity == "error"


# -- with a search --------------------------------------------------------------------------------


@pytest.fixture
def search_file(place: Path, tmp_path: Path) -> Path:
    file = tmp_path / "cells.yaml"
    file.write_text(
        f'data: {{train: "{place}/train.json", val: "{place}/val.json"}}\n'
        "model: {weights: none, image_size: 96}\n"
    )
    return file


@pytest.mark.parametrize("command", ["search", "train"])
def test_bad_data_stops_a_search_before_anything_starts(
    place: Path, search_file: Path, capsys: Captured, command: str
) -> None:
    with_box(1, 2, 0, 4)(place)
    assert main([command, str(search_file)]) == 2
    error = capsys.readouterr().err
    assert "data.train: box-empty: " in error and "--allow box-empty" in error
    assert not Path("searches").exists()


def test_errors_of_config_and_data_are_told_together(
    place: Path, search_file: Path, capsys: Captured
) -> None:
    with_box(1, 2, 0, 4)(place)
    assert main(["search", str(search_file), "--set", "train.sead=1"]) == 2
    error = capsys.readouterr().err
    assert "train.sead: unknown key" in error and "box-empty" in error


def test_a_config_can_be_checked_and_can_allow(
    place: Path, search_file: Path, capsys: Captured
) -> None:
    with_box(1, 2, 0, 4)(place)
    assert main(["check", str(search_file)]) == 2
    text = search_file.read_text().replace("val.json", 'val.json", allow: ["box-empty')
    search_file.write_text(text.replace('"}', '"]}'))
    assert main(["check", str(search_file)]) == 0


def test_a_config_can_count_crowds_as_objects(place: Path, search_file: Path) -> None:
    edit(lambda c: [a.update(iscrowd=a["category_id"] // 90) for a in c["annotations"]])(place)
    assert main(["check", str(search_file)]) == 2
    text = search_file.read_text()
    search_file.write_text(text.replace('val.json"', 'val.json", crowds: objects'))
    assert main(["check", str(search_file)]) == 0
    search_file.write_text(text.replace('val.json"', 'val.json", crowds: object'))
    assert main(["check", str(search_file)]) == 2


def test_data_that_cannot_be_parsed_is_left_to_the_configs_own_check(place: Path) -> None:
    assert data_errors({"train": 3}, place) == []
    assert data_errors("digits", place) == []
    assert data_errors({"train": "gone.json"}, place) == []


# -- where the pictures are -----------------------------------------------------------------------


def moved(place: Path, *, a_split: bool) -> Path:
    """The pictures of a data set elsewhere, in one folder or one a split."""
    elsewhere = place.parent / "elsewhere"
    for file in (place / "images").iterdir():
        folder = elsewhere / file.name.partition("-")[0] if a_split else elsewhere
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    return elsewhere


def test_a_folder_of_pictures_can_be_given(place: Path, capsys: Captured) -> None:
    elsewhere = moved(place, a_split=False)
    assert codes(checked(place, capsys)[1]) == ["pictures-elsewhere"] * 2
    assert checked(place, capsys, "--images", str(elsewhere))[0] == 0
    assert checked(place / "train.json", capsys, "--images", str(elsewhere))[0] == 0


def test_a_folder_of_pictures_can_be_given_a_split(
    place: Path, search_file: Path, capsys: Captured
) -> None:
    elsewhere = moved(place, a_split=True)
    each = ("--images", f"train={elsewhere / 'train'}", "--images", f"val={elsewhere / 'val'}")
    assert checked(place, capsys, *each)[0] == 0
    assert checked(place, capsys, "--images", str(elsewhere / "train"), *each[2:])[0] == 0
    status, report = checked(place, capsys, *each[2:])
    assert (status, codes(report)) == (2, ["pictures-elsewhere"])
    assert main(["check", str(search_file), *each]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nowhere"], "--images nowhere: no folder nowhere"),
        (["val=nowhere"], "--images val=nowhere: no folder nowhere"),
        (["test=."], "--images test=.: there is no test, only train, val"),
        ([".", "."], "--images .: all has . already"),
        (["val=.", "val=."], "--images val=.: val has . already"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_told(
    place: Path, capsys: Captured, given: list[str], message: str
) -> None:
    assert main(["check", str(place), *(w for text in given for w in ("--images", text))]) == 2
    assert message in capsys.readouterr().err.splitlines()


def test_yolo_and_the_embedded_data_set_say_themselves_where_their_pictures_are(
    tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: images\n")
    assert main(["check", str(tmp_path), "--images", "."]) == 2
    assert "--images: path and train in data.yaml say" in capsys.readouterr().err
    (tmp_path / "search.yaml").write_text("data: digits\n")
    assert main(["check", str(tmp_path / "search.yaml"), "--images", "."]) == 2
    assert "--images: the embedded data set has its images" in capsys.readouterr().err


# -- JSON -----------------------------------------------------------------------------------------


def no_data(place: Path) -> list[str]:
    (place / "empty").mkdir()
    return [str(place / "empty")]


def no_text(place: Path) -> list[str]:
    (place / "x.yaml").write_bytes(b"\xff\xfe")
    return [str(place / "x.yaml")]


def wrong_config(place: Path) -> list[str]:
    (place / "x.yaml").write_text("data: {train: 3}\n")
    return [str(place / "x.yaml")]


def out_is_a_file(place: Path) -> list[str]:
    return [str(place), "--out", str(place / "train.json")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: [str(place / "nowhere")], "no such file or folder"),
        (lambda place: ["x" * 5000], "File name too long"),
        (no_data, "found no data set here"),
        (no_text, "is not UTF-8 text"),
        (wrong_config, "data.train: 3"),
        (out_is_a_file, "is no folder"),
        (lambda place: [str(place), "--allow", "box-emty"], "did you mean box-empty?"),
        (lambda place: [str(place), "--images", "nowhere"], "no folder nowhere"),
    ],
)
def test_what_cannot_be_checked_is_told_in_json_too(
    place: Path, capsys: Captured, make: Callable[[Path], list[str]], message: str
) -> None:
    assert main(["check", *make(place), "--json"]) == 2
    printed, error = capsys.readouterr()
    report = json.loads(printed)
    assert (report["errors"], report["findings"]) == (len(report["messages"]), [])
    assert message in report["messages"][0]
    assert error.splitlines() == report["messages"]


def test_a_wrong_command_line_is_told_in_json_too(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["check", "--json", "a", "b"])
    assert raised.value.code == 2
    printed, error = capsys.readouterr()
    (message,) = json.loads(printed)["messages"]
    assert message == "unrecognized arguments: b" and message in error
    with pytest.raises(SystemExit):
        main(["check"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("raised", "status"),
    [(KeyboardInterrupt(), 1), (OSError(28, "No space left on device"), 1), (KeyError("x"), None)],
)
def test_an_interrupted_check_is_told_in_json_too(
    place: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int | None,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr("search.commands.check._draw", fail)  # where nearly all is done
    line = ["check", str(place), "--json", "--out", "drawn"]
    if status is None:  # a bug, which stays one
        with pytest.raises(KeyError):
            main(line)
    else:
        assert main(line) == status
    assert json.loads(capsys.readouterr().out)["errors"] == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1.5, {}, []])
@pytest.mark.parametrize("field", ["id", "image_id", "category_id", "area"])
def test_whatever_stands_in_a_field_the_report_is_json(
    place: Path, capsys: Captured, field: str, number: Any
) -> None:
    edit(lambda c: c["annotations"][7].update({field: number}))(place)
    main(["check", str(place), "--json"])
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["format"] == "COCO"


# -- real ones ------------------------------------------------------------------------------------

REAL = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.parametrize("name", ["bccd", "cards"])
def test_real_data_has_no_false_errors_and_stays_as_it_is(name: str, capsys: Captured) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"needs {REAL / name}")
    before = {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in (REAL / name).rglob("*")}
    assert main(["check", str(REAL / name), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one for one in found["findings"] if one["severity"] == "error"] == []
    assert {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in (REAL / name).rglob("*")} == before
