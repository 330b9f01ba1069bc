"""Whatever an annotation file says in whatever field: an error, or read as it is meant."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.config import Data
from trainer.data.checks.examine import Examined, examine

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
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("validate")
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), colour).save(place / name)
    return place


def content() -> dict[str, Any]:
    """A box of each of two classes on each of two pictures."""
    return {
        "images": [
            {"id": i, "file_name": name, "width": 40, "height": 30}
            for i, name in enumerate(("a.png", "b.png"))
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i // 2,
                "category_id": i % 2,
                "bbox": [1 + i, 2, 10, 12],
                "area": 120,
                "iscrowd": 0,
                "ignore": 0,
                "segmentation": [],
            }
            for i in range(4)
        ],
        "categories": [{"id": i, "name": f"c{i}", "supercategory": "c"} for i in range(2)],
    }


def examined(place: Path, text: str, **fields: Any) -> Examined:
    file = place / "train.json"
    file.write_text(text)
    return examine(Data(train=file, **fields), place / "cache")


def codes(found: Examined) -> list[str]:
    return [finding.code for finding in found.findings]


def read(found: Examined) -> list[tuple[Any, ...]]:
    return [
        (p.boxes.tolist(), p.areas.tolist(), p.labels.tolist(), p.crowd.tolist())
        for p in found.splits["train"].pictures
    ]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", RIGHT)
def test_an_odd_value_is_an_error_or_read_as_it_is_meant(place: Path, field: str, odd: str) -> None:
    part, name, *place_in_it = field.split(".")
    spoilt = content()
    if place_in_it:
        spoilt[part][1][name][int(place_in_it[0])] = "@"
    else:
        spoilt[part][1][name] = "@"
    found = examined(place, json.dumps(spoilt).replace('"@"', ODD[odd]))
    for finding in found.findings:
        assert len(finding.line) < 500  # however long the value is
    if name in {"iscrowd", "ignore"} and odd == "true":
        assert not found.errors and read(found)[0][3] == [False, True]
    elif odd in RIGHT[field]:
        assert not found.errors and read(found) == read(examined(place, json.dumps(content())))
    else:
        assert found.errors


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_an_odd_entry_or_list_is_an_error(place: Path, part: str, odd: str) -> None:
    for value in ("@", ["@"], [content()[part][0], "@"]):
        text = json.dumps({**content(), part: value}).replace('"@"', ODD[odd])
        assert examined(place, text).errors


@pytest.mark.parametrize("box", [[1e308] * 4, [-1e308, 0, 1e308, 9], [1, 1, 1e-320, 1e308]])
def test_a_box_beyond_all_bounds_is_an_error(place: Path, box: list[float]) -> None:
    spoilt = content()
    spoilt["annotations"][1]["bbox"] = box
    assert examined(place, json.dumps(spoilt)).errors


@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
@pytest.mark.parametrize(
    ("value", "is_set"), [(0, False), (1, True), (0.0, False), (1.0, True), (False, False)]
)
def test_a_flag_is_a_number_or_true_or_false(
    place: Path, field: str, value: Any, is_set: bool
) -> None:
    marked = content()
    marked["annotations"][1][field] = value
    found = examined(place, json.dumps(marked))
    assert not found.errors and read(found)[0][3] == [False, is_set]


@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", ["0", "1", "false", 2, -1, [0], float("inf")])
def test_a_flag_of_another_type_is_no_flag(place: Path, field: str, value: Any) -> None:
    marked = content()
    for annotation in marked["annotations"]:
        annotation[field] = value
    (error,) = examined(place, json.dumps(marked)).errors
    assert (error.code, error.count) == ("field-malformed", 4)
    assert error.places[1].detail.startswith(f"annotations[1] (id 1): {field} is ")


def test_of_a_key_given_twice_the_last_counts(place: Path) -> None:
    text = json.dumps(content())
    twice = text.replace('"area": 120', '"area": 7, "area": 120')
    assert read(examined(place, twice)) == read(examined(place, text))


def test_what_a_tool_writes_where_it_knows_no_size_is_no_error(place: Path) -> None:
    for fields in ({"area": 0}, {"area": -1.0}, {"id": None}, {"id": "a1"}):
        unknown = content()
        unknown["annotations"][1].update(fields)
        assert not examined(place, json.dumps(unknown)).errors


# -- crowds, and boxes to ignore ------------------------------------------------------------------


def with_marks(field: str, marked: int, of: int) -> str:
    """As many boxes of the first class as there are marked, and one of the other a picture."""
    found = content()
    found["annotations"] = [
        {"id": i, "image_id": i % 2, "category_id": 0, "bbox": [1 + i / 9, 2, 9, 9]}
        | ({field: 1} if i < marked else {})
        for i in range(of)
    ]
    found["annotations"] += [
        {"id": 900 + i, "image_id": i, "category_id": 1, "bbox": [1, 2, 9, 9]} for i in range(2)
    ]
    return json.dumps(found)


@pytest.mark.parametrize(("marked", "of"), [(1, 1), (10, 10), (10, 20), (4, 20), (30, 100)])
def test_crowds_that_are_much_of_a_class_are_an_error(place: Path, marked: int, of: int) -> None:
    text = with_marks("iscrowd", marked, of)
    error = next(e for e in examined(place, text).errors if e.code == "crowds-many")
    assert [place.detail for place in error.places] == [f"c0: {marked} of {of} boxes"]
    assert "data: {crowds: objects}" in error.line and "--allow crowds-many" in error.line
    allowed = examined(place, text, allow=["crowds-many"])
    assert "crowds-many" not in [error.code for error in allowed.errors]
    assert sum(sum(row[3]) for row in read(allowed)) == marked


@pytest.mark.parametrize(("marked", "of"), [(1, 2), (3, 9), (4, 40), (12, 100)])
def test_a_few_crowds_are_a_note(place: Path, marked: int, of: int) -> None:
    found = examined(place, with_marks("iscrowd", marked, of))
    assert not found.errors
    (crowds,) = (finding for finding in found.findings if finding.code == "crowds")
    assert (crowds.severity, crowds.count) == ("note", marked)


def test_crowds_can_be_counted_as_objects(place: Path) -> None:
    text = with_marks("iscrowd", 10, 10)
    found = examined(place, text, crowds="objects")
    assert not found.errors and not {"crowds", "crowds-many"} & set(codes(found))
    assert read(found) == read(examined(place, with_marks("iscrowd", 0, 10)))


def test_boxes_to_ignore_are_counted_and_are_no_objects(place: Path) -> None:
    text = with_marks("ignore", 10, 20)
    for crowds in ("ignore", "objects"):  # which has no say in it
        found = examined(place, text, crowds=crowds)
        (ignored,) = (finding for finding in found.findings if finding.code == "ignored")
        assert (ignored.severity, ignored.count) == ("warning", 10)
        assert not found.errors
        assert sum(sum(row[3]) for row in read(found)) == 10


def test_a_split_of_boxes_to_ignore_alone_has_none(place: Path) -> None:
    marked = content()
    for annotation in marked["annotations"]:
        annotation["ignore"] = 1
    assert "split-without-boxes" in codes(examined(place, json.dumps(marked)))


@pytest.mark.parametrize("size", [(40.0, 30.0), (None, None)])
def test_a_size_may_be_unknown_or_have_a_point(place: Path, size: tuple[Any, Any]) -> None:
    sized = content()
    sized["images"][0].update(width=size[0], height=size[1])
    assert not examined(place, json.dumps(sized)).errors
