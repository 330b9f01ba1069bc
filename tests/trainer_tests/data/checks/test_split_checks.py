"""What only shows when pictures or splits are compared."""

from pathlib import Path
from typing import Any

import pytest

from ..spoilt_sets import (
    COUNTS,
    Spoil,
    both,
    check_error,
    check_no_error,
    edit,
    with_a_class_in_val_alone,
)

ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
    (
        "B33",
        "same-picture-in-splits",
        lambda p: (p / "images/val-5.png").write_bytes((p / "images/train-3.png").read_bytes()),
        {"image": 5, "file": "val-5.png", "detail": "is train-3.png of train"},
    ),
    ("B35", "class-untrained", with_a_class_in_val_alone, {"detail": "green (1 boxes)"}),
    (
        "B37 twice",
        "split-twice",
        lambda p: (p / "val.json").write_text((p / "train.json").read_text()),
        {},
    ),
]
WARNINGS_AND_NOTES: list[tuple[str, str, Spoil, str]] = [
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
