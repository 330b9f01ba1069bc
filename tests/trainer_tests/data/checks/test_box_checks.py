"""Boxes against the sizes of their pictures."""

from pathlib import Path
from typing import Any

import pytest

from ..spoilt_sets import (
    A7,
    Spoil,
    check_error,
    check_no_error,
    edit,
    every_box,
    to_far_corners,
    with_box,
)

ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
    ("B20 mostly", "box-mostly-outside", with_box(-18, 2, 20, 10), A7),
    ("B21", "box-outside", with_box(50, 2, 10, 10), A7),
    (
        "B23",
        "boxes-normalised",
        every_box(lambda b: [b[0] / 40, b[1] / 30, b[2] / 40, b[3] / 30]),
        {},
    ),
    ("B24", "boxes-are-corners", every_box(to_far_corners), {}),
]
WARNINGS_AND_NOTES: list[tuple[str, str, Spoil, str]] = [
    ("B20", "box-partly-outside", with_box(30, 2, 15, 10), "warning"),
    (
        "B32",
        "box-twice",
        edit(lambda c: c["annotations"].append({**c["annotations"][7], "id": 99})),
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
