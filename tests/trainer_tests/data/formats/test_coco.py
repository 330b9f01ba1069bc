"""COCO jsons are read, or the reason why not is given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Data
from trainer.data.loading import load

from ..small_sets import CACHE, errors_of, rewrite, write
from ..spoilt_sets import Coco, Spoil, check_error, encoded, with_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{\n 1", "train.json: line 2, column 2: "),
        ('{"images": [1], "annotations": [], "categories": []}', "images[0] is no object"),
        ("", "is empty"),
        ("[]", "is no COCO json: it has no list images and no list annotations"),
        ("3", "is no COCO json"),
        ('{"images": [], "annotations": {}, "categories": []}', "it has no list annotations"),
    ],
)
def test_a_file_that_is_no_coco_json_is_reported(data: Data, content: str, message: str) -> None:
    write(data.train, content)
    (error,) = errors_of(data)
    assert error.startswith("data.train: file-unreadable: ")
    assert message in error


def test_a_byte_order_mark_is_read_over(data: Data) -> None:
    data.train.write_bytes(b"\xef\xbb\xbf" + data.train.read_bytes())
    assert len(load(data, CACHE).train.pictures) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["categories"][0].pop("name"),
        lambda c: c["categories"][0].pop("id"),
        lambda c: c["categories"].append("red"),
        lambda c: c["images"].append("a.png"),
        lambda c: c["annotations"].append(None),
    ],
    ids=["no name", "no id", "no category", "no image", "no annotation"],
)
def test_malformed_entries_are_reported(data: Data, change: Callable[[Coco], Any]) -> None:
    rewrite(data.train, change)
    assert errors_of(data)[0].startswith("data.train: ")


ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
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
]


@pytest.mark.parametrize(
    ("code", "spoil", "at"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS]
)
def test_an_error_is_reported_with_its_place(
    place: Path, code: str, spoil: Spoil, at: dict[str, Any]
) -> None:
    check_error(place, code, spoil, at)
