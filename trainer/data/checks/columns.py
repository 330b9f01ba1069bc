"""The boxes of a split as arrays, and findings about boxes by their row."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..findings import Findings, Place, shown
from ..formats.records import Records

FARTHEST = 2**31
"""Pixels that no picture has. Sums and areas of larger numbers might overflow."""


@dataclass
class Columns:
    """The records of a split as arrays: n images and m boxes, with bad boxes masked out."""

    image: NDArray[np.int64]
    """(m,) the position of each box's image in `Records.images`, -1 for none."""
    category: NDArray[np.int64]
    """(m,) category ids."""
    boxes: NDArray[np.float64]
    """(m, 4) x, y, width, height; NaN for what is no box."""
    areas: NDArray[np.float64]
    """(m,) square pixels, NaN if the file does not say."""
    crowd: NDArray[np.bool_]
    """(m,) crowds and ignored boxes, which are neither objects nor mistakes."""
    sound: NDArray[np.bool_]
    """(m,) the boxes that stay."""


def is_id(value: Any) -> bool:
    """Whether a value is an integer of at most 64 bits, as ids are."""
    return type(value) is int and abs(value) < 2**63


def to_columns(records: Records, findings: Findings) -> Columns:
    """Convert a split's boxes to arrays; boxes with findings are masked out."""
    positions = {image.id: i for i, image in enumerate(records.images)}
    listed = {category.id for category in records.categories}
    boxes, is_box = _boxes([box.bbox for box in records.boxes])
    categories = [box.category_id for box in records.boxes]
    columns = Columns(
        image=_integers(positions.get(box.image_id, -1) for box in records.boxes),
        category=_integers(-1 if category is None else category for category in categories),
        boxes=boxes,
        areas=np.array([_area(box.area) for box in records.boxes], dtype=np.float64),
        crowd=np.array([bool(box.iscrowd) for box in records.boxes], dtype=np.bool_),
        sound=np.ones(len(records.boxes), dtype=np.bool_),
    )
    is_listed = np.array([category in listed for category in categories], dtype=np.bool_)
    too_large = is_box & ~(np.abs(boxes) < FARTHEST).all(axis=1)  # NaN is not below it either
    wrong = {
        "unknown-image": (columns.image < 0, lambda i: ""),
        "unknown-category": (~is_listed, lambda i: f"category {categories[i]}"),
        "box-malformed": (~is_box, lambda i: _raw_text(records.boxes[i].bbox)),
        "box-not-finite": (too_large, lambda i: _raw_text(records.boxes[i].bbox)),
    }
    for code, (mask, detail) in wrong.items():
        mark(code, records, columns, findings, mask, detail)
    boxes[too_large] = nan
    _check_shapes(records, columns, findings)
    return columns


def _check_shapes(records: Records, columns: Columns, findings: Findings) -> None:
    """Mark boxes without a positive width and height."""
    boxes = columns.boxes
    negative = np.any(boxes[:, 2:] < 0, axis=1)
    empty = np.any(boxes[:, 2:] == 0, axis=1) & ~negative
    for code, mask in (("box-negative", negative), ("box-empty", empty)):
        mark(code, records, columns, findings, mask, lambda i: box_text(boxes[i].tolist()))


def mark(
    code: str,
    records: Records,
    columns: Columns,
    findings: Findings,
    mask: NDArray[np.bool_],
    detail: Callable[[int], str],
    drop: bool = True,
) -> None:
    """Add one finding for the boxes under a mask (m,), and drop them from the sound ones."""
    findings.add_at(
        code,
        records.name,
        records.source,
        np.flatnonzero(mask),  # type: ignore[arg-type]
        lambda i: _box_place(records, columns, i, detail(i)),
    )
    if drop:
        columns.sound &= ~mask


def _box_place(records: Records, columns: Columns, i: int, detail: str) -> Place:
    image = records.images[columns.image[i]] if columns.image[i] >= 0 else None
    box = records.boxes[i]
    return Place(
        file=str(image.file_name) if image else "",
        image=image.id if image else box.image_id,
        annotation=f"number {i}" if box.id is None else box.id,
        detail=detail,
    )


def box_text(box: Iterable[Any]) -> str:
    """The numbers of a box in a message."""
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in box)


def _raw_text(box: Any) -> str:
    """Whatever a file has for a box in a message, shortened."""
    is_row = isinstance(box, list) and {type(v) for v in box} <= {int, float, str}
    return box_text(box)[:80] if is_row else shown(box)


def _boxes(raw: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes as an array (m, 4), and which of them are 4 numbers; the others become NaN."""
    are_lists = all(type(box) is list and len(box) == 4 for box in raw)
    if are_lists and set(map(type, chain.from_iterable(raw))) <= {int, float}:
        with suppress(OverflowError):  # of integers with hundreds of digits
            array = np.array(raw, dtype=np.float64).reshape(-1, 4)
            return array, np.ones(len(raw), dtype=np.bool_)
    is_box = np.array([_is_box(box) for box in raw], dtype=np.bool_)
    rows = [box if good else [np.nan] * 4 for box, good in zip(raw, is_box, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 4), is_box


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(v) is float or is_id(v) for v in box)  # 64 bits always fit a float
    )


def _area(value: Any) -> float:
    """An area that means something: many tools write 0 if they do not know it."""
    return float(value) if value is not None and 0 < value < 2**63 else nan


def _integers(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, dtype=np.int64)
