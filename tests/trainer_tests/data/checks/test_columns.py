"""Boxes as arrays, and the boxes that are left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from ..spoilt_sets import A7, Spoil, check_error, edit, with_box
from .two_pictures import content, read_json

ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
    (
        "B4",
        "unknown-image",
        edit(lambda c: c["annotations"][7].update(image_id=77)),
        {"annotation": 7, "image": 77},
    ),
    ("B18", "box-empty", with_box(1, 2, 0, 4), A7),
    ("B19", "box-negative", with_box(10, 10, -4, 4), A7),
    ("B22 NaN", "box-not-finite", with_box(1, float("nan"), 3, 4), A7),
    ("B22 inf", "box-not-finite", with_box(1, 2, float("inf"), 4), A7),
    ("B25", "box-malformed", with_box(1, 2, 3), A7),
    ("B25 strings", "box-malformed", with_box("1", "2", "3", "4"), A7),
    ("B25 null", "box-malformed", edit(lambda c: c["annotations"][7].update(bbox=None)), A7),
    (
        "B27",
        "unknown-category",
        edit(lambda c: c["annotations"][7].update(category_id=5)),
        {**A7, "detail": "category 5"},
    ),
]


@pytest.mark.parametrize(
    ("code", "spoil", "at"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS]
)
def test_an_error_is_reported_with_its_place(
    place: Path, code: str, spoil: Spoil, at: dict[str, Any]
) -> None:
    check_error(place, code, spoil, at)


@pytest.mark.parametrize("box", [[1e308] * 4, [-1e308, 0, 1e308, 9], [1, 1, 1e-320, 1e308]])
def test_a_box_beyond_all_bounds_is_an_error(tmp_path: Path, box: list[float]) -> None:
    spoilt = content()
    spoilt["annotations"][1]["bbox"] = box
    assert read_json(tmp_path, json.dumps(spoilt)).errors
