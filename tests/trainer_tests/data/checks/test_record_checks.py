"""Whatever an annotation file says in whatever field: an error, or read as it is meant."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ..spoilt_sets import Spoil, both, check_error, check_no_error, edit, picture, with_image
from .two_pictures import all_codes, boxes_of, content, read_json

ODD = {
    "nothing": '""',
    "null": "null",
    "list": "[]",
    "dict": "{}",
    "text": '"5"',
    "true": "true",
    "-0.5": "-0.5",
    "30 digits": "1" + "0" * 30,
    "5000 digits": "9" * 5000,
    "1e400": "1e400",
    "-1": "-1",
    "NaN": "NaN",
    "half a letter": '"\\ud800"',
    "deep": "[" * 400 + "]" * 400,
    "too deep": "[" * 10_000 + "]" * 10_000,
}
"""As JSON has them."""


NUMBERS = {"-0.5", "30 digits", "5000 digits", "1e400", "-1", "NaN"}


TEXTS = {"nothing", "text", "half a letter"}


RIGHT: dict[str, set[str]] = {
    "images.id": set(),
    "images.file_name": set(),  # no such picture
    "images.width": set(),  # not the picture's
    "images.height": set(),
    "annotations.id": {"null", "-1", "30 digits", *TEXTS},
    "annotations.image_id": set(),
    "annotations.category_id": set(),
    "annotations.bbox": set(),
    "annotations.bbox.2": set(),
    "annotations.iscrowd": {"null"},
    "annotations.ignore": {"null"},
    "annotations.area": {"null", *NUMBERS},
    "annotations.segmentation": ODD.keys() - {"too deep"},  # which nobody reads
    "categories.id": set(),
    "categories.name": TEXTS,
    "categories.supercategory": {"null", "true", *NUMBERS, *TEXTS},
}
"""Odd values that change nothing of what is read; all others are errors, but a flag `true`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validate")
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), colour).save(folder / name)
    return folder


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", RIGHT)
def test_an_odd_value_is_an_error_or_read_as_it_is_meant(
    folder: Path, field: str, odd: str
) -> None:
    part, name, *place_in_it = field.split(".")
    spoilt = content()
    if place_in_it:
        spoilt[part][1][name][int(place_in_it[0])] = "@"
    else:
        spoilt[part][1][name] = "@"
    result = read_json(folder, json.dumps(spoilt).replace('"@"', ODD[odd]))
    for finding in result.findings:
        assert len(finding.line) < 500  # however long the value is
    if name in {"iscrowd", "ignore"} and odd == "true":
        assert not result.errors and boxes_of(result)[0][3] == [False, True]
    elif odd in RIGHT[field]:
        assert not result.errors and boxes_of(result) == boxes_of(
            read_json(folder, json.dumps(content()))
        )
    else:
        assert result.errors


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_an_odd_entry_or_list_is_an_error(folder: Path, part: str, odd: str) -> None:
    for value in ("@", ["@"], [content()[part][0], "@"]):
        text = json.dumps({**content(), part: value}).replace('"@"', ODD[odd])
        assert read_json(folder, text).errors


@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
@pytest.mark.parametrize(
    ("value", "is_set"), [(0, False), (1, True), (0.0, False), (1.0, True), (False, False)]
)
def test_a_flag_is_a_number_or_true_or_false(
    folder: Path, field: str, value: Any, is_set: bool
) -> None:
    marked = content()
    marked["annotations"][1][field] = value
    result = read_json(folder, json.dumps(marked))
    assert not result.errors and boxes_of(result)[0][3] == [False, is_set]


@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", ["0", "1", "false", 2, -1, [0], float("inf")])
def test_a_flag_of_another_type_is_no_flag(folder: Path, field: str, value: Any) -> None:
    marked = content()
    for annotation in marked["annotations"]:
        annotation[field] = value
    (error,) = read_json(folder, json.dumps(marked)).errors
    assert (error.code, error.count) == ("field-malformed", 4)
    assert error.places[1].detail.startswith(f"annotations[1] (id 1): {field} is ")


def test_of_a_key_given_twice_the_last_counts(folder: Path) -> None:
    text = json.dumps(content())
    twice = text.replace('"area": 120', '"area": 7, "area": 120')
    assert boxes_of(read_json(folder, twice)) == boxes_of(read_json(folder, text))


def test_what_a_tool_writes_where_it_knows_no_size_is_no_error(folder: Path) -> None:
    for fields in ({"area": 0}, {"area": -1.0}, {"id": None}, {"id": "a1"}):
        unknown = content()
        unknown["annotations"][1].update(fields)
        assert not read_json(folder, json.dumps(unknown)).errors


def with_marks(field: str, marked: int, of: int) -> str:
    """As many boxes of the first class as there are marked, and one of the other a picture."""
    result = content()
    result["annotations"] = [
        {"id": i, "image_id": i % 2, "category_id": 0, "bbox": [1 + i / 9, 2, 9, 9]}
        | ({field: 1} if i < marked else {})
        for i in range(of)
    ]
    result["annotations"] += [
        {"id": 900 + i, "image_id": i, "category_id": 1, "bbox": [1, 2, 9, 9]} for i in range(2)
    ]
    return json.dumps(result)


@pytest.mark.parametrize(("marked", "of"), [(1, 1), (10, 10), (10, 20), (4, 20), (30, 100)])
def test_crowds_that_are_much_of_a_class_are_an_error(folder: Path, marked: int, of: int) -> None:
    text = with_marks("iscrowd", marked, of)
    error = next(e for e in read_json(folder, text).errors if e.code == "crowds-many")
    assert [folder.detail for folder in error.places] == [f"c0: {marked} of {of} boxes"]
    assert "data: {crowds: objects}" in error.line and "--allow crowds-many" in error.line
    allowed = read_json(folder, text, allow=["crowds-many"])
    assert "crowds-many" not in [error.code for error in allowed.errors]
    assert sum(sum(row[3]) for row in boxes_of(allowed)) == marked


@pytest.mark.parametrize(("marked", "of"), [(1, 2), (3, 9), (4, 40), (12, 100)])
def test_a_few_crowds_are_a_note(folder: Path, marked: int, of: int) -> None:
    result = read_json(folder, with_marks("iscrowd", marked, of))
    assert not result.errors
    (crowds,) = (finding for finding in result.findings if finding.code == "crowds")
    assert (crowds.severity, crowds.count) == ("note", marked)


def test_crowds_can_be_counted_as_objects(folder: Path) -> None:
    text = with_marks("iscrowd", 10, 10)
    result = read_json(folder, text, crowds="objects")
    assert not result.errors and not {"crowds", "crowds-many"} & set(all_codes(result))
    assert boxes_of(result) == boxes_of(read_json(folder, with_marks("iscrowd", 0, 10)))


def test_boxes_to_ignore_are_counted_and_are_no_objects(folder: Path) -> None:
    text = with_marks("ignore", 10, 20)
    for crowds in ("ignore", "objects"):  # which has no say in it
        result = read_json(folder, text, crowds=crowds)
        (ignored,) = (finding for finding in result.findings if finding.code == "ignored")
        assert (ignored.severity, ignored.count) == ("warning", 10)
        assert not result.errors
        assert sum(sum(row[3]) for row in boxes_of(result)) == 10


def test_a_split_of_boxes_to_ignore_alone_has_none(folder: Path) -> None:
    marked = content()
    for annotation in marked["annotations"]:
        annotation["ignore"] = 1
    assert "split-without-boxes" in all_codes(read_json(folder, json.dumps(marked)))


@pytest.mark.parametrize("size", [(40.0, 30.0), (None, None)])
def test_a_size_may_be_unknown_or_have_a_point(folder: Path, size: tuple[Any, Any]) -> None:
    sized = content()
    sized["images"][0].update(width=size[0], height=size[1])
    assert not read_json(folder, json.dumps(sized)).errors


ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
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
]


WARNINGS_AND_NOTES: list[tuple[str, str, Spoil, str]] = [
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
    (
        "B30 case",
        "category-name-similar",
        edit(lambda c: c["categories"].append({"id": 5, "name": "Red "})),
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
]


@pytest.mark.parametrize(
    ("code", "spoil", "at"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS]
)
def test_an_error_is_reported_with_its_place(
    place: Path, code: str, spoil: Spoil, at: dict[str, Any]
) -> None:
    check_error(place, code, spoil, at)


@pytest.mark.parametrize(
    ("code", "spoil", "severity"),
    [r[1:] for r in WARNINGS_AND_NOTES],
    ids=[r[0] for r in WARNINGS_AND_NOTES],
)
def test_a_warning_or_note_is_no_error(place: Path, code: str, spoil: Spoil, severity: str) -> None:
    check_no_error(place, code, spoil, severity)
