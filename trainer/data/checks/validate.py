"""What is wrong with a split's records, and the columns of what is sound in them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import nan
from types import NoneType
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from ..findings import Findings, Place, shown
from ..formats.file_names import composed
from ..formats.records import Records

NEEDED = {
    "images": ("id", "file_name"),
    "boxes": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""Fields without which an entry of each list means nothing."""
CALLED = {"images": "images", "boxes": "annotations", "categories": "categories"}
"""In messages, as COCO calls them."""
FARTHEST = 2**31
"""Pixels that no picture has; sums and areas of larger numbers might overflow."""
MANY, EVIDENCE = 0.2, 4
"""Share of a class's boxes, and least number of them, from which on its crowds are an error. About
1 % of COCO's boxes are crowds; a tool that exports masks as crowds makes all of them such, or those
that were drawn with one of its brushes. One or two may be a small part of COCO."""


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_flag(value: Any) -> bool:
    return value in (0, 1, None)  # and so true, false, 0.0 and 1.0, but no text


def _is_number(value: Any) -> bool:
    return type(value) in {int, float, NoneType}


FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "images": {
        "id": _is_id,
        "file_name": lambda value: isinstance(value, str) and value != "",
        "width": _is_number,
        "height": _is_number,
    },
    "boxes": {
        "id": lambda value: type(value) in {int, str, NoneType},  # it only names a place
        "image_id": _is_id,
        "category_id": lambda value: value is None or _is_id(value),  # a reader knew no such class
        "iscrowd": _is_flag,
        "ignore": _is_flag,
        "area": _is_number,
    },
    "categories": {
        "id": _is_id,
        "name": lambda value: isinstance(value, str),
        "supercategory": lambda value: not isinstance(value, list | dict),
    },
}
"""Whether a field's value is of the right type; of `bbox` that is a finding of its own."""


@dataclass
class Columns:
    """The records of a split as arrays: n images and m boxes, bad ones masked out."""

    image: NDArray[np.int64]
    """(m,) the place of each box's image in `Records.images`, -1 for none."""
    category: NDArray[np.int64]
    """(m,) category ids."""
    boxes: NDArray[np.float64]
    """(m, 4) x, y, width, height; NaN where it was no box."""
    areas: NDArray[np.float64]
    """(m,) square pixels, NaN where the file does not say."""
    crowd: NDArray[np.bool_]
    """(m,) crowds and ignored boxes, which are neither objects nor mistakes."""
    sound: NDArray[np.bool_]
    """(m,) which boxes stay."""


def read_columns(records: Records, findings: Findings, crowds: str) -> Columns | None:
    """Check ids, names and shapes; None where nothing more can be said of the split.

    `crowds` is `Data.crowds`.
    """
    if not records.images:
        findings.add("split-empty", records.name, records.source, [Place()])
        return None
    if not _has_fields(records, findings):
        return None
    _check_ids(records, findings)
    if not _check_categories(records, findings):
        return None
    columns = _columns(records, findings)
    if crowds == "ignore":
        _check_crowds(records, columns, findings)
    else:
        columns.crowd[:] = False
    ignored = np.array([bool(box.ignore) for box in records.boxes], dtype=np.bool_)
    mark("ignored", records, columns, findings, ignored, lambda i: "", drop=False)
    columns.crowd |= ignored
    if not (columns.sound & ~columns.crowd).any():
        findings.add("split-without-boxes", records.name, records.source, [Place()])
    difficult = (Place(annotation=identity) for identity in records.difficult)
    findings.add("difficult", records.name, records.source, difficult)
    _check_labels(records, columns, findings)
    return columns


def box_place(records: Records, columns: Columns, i: int, detail: str) -> Place:
    """Where the i-th box is."""
    image = records.images[columns.image[i]] if columns.image[i] >= 0 else None
    own = records.boxes[i].id
    identity = f"number {i}" if own is None else own
    return Place(
        file=str(image.file_name) if image else "",
        image=image.id if image else records.boxes[i].image_id,
        annotation=identity,
        detail=detail,
    )


def show(box: Iterable[Any]) -> str:
    """A box in a message."""
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in box)


def _has_fields(records: Records, findings: Findings) -> bool:
    before = len(findings.found)
    for part, fields in FIELDS.items():
        items = getattr(records, part)
        lacking = (
            Place(detail=f"{_entry(part, i, item)} has no {' and no '.join(gone)}")
            for i, item in enumerate(items)
            if (gone := [name for name in NEEDED[part] if getattr(item, name) is UNSET])
        )
        findings.add("field-missing", records.name, records.source, lacking)
        wrong = (
            Place(_file(item), detail=f"{_entry(part, i, item)}: {name} is {shown(value)}")
            for name, is_right in fields.items()
            for i, item in enumerate(items)
            if not is_right(value := getattr(item, name)) and value is not UNSET
        )
        findings.add("field-malformed", records.name, records.source, wrong)
    return len(findings.found) == before


def _entry(part: str, i: int, item: Any) -> str:
    """An entry as its file has it: by its place, counted from 0, and by its id where it has one."""
    named = f" (id {item.id})" if _is_id(item.id) else ""
    return f"{CALLED[part]}[{i}]{named}"


def _file(item: Any) -> str:
    name = getattr(item, "file_name", "")
    return name if isinstance(name, str) else ""


def _check_ids(records: Records, findings: Findings) -> None:
    twice = (
        Place(str(records.images[i].file_name), image=records.images[i].id)
        for i in _repeats([image.id for image in records.images])
    )
    findings.add("image-id-twice", records.name, records.source, twice)
    own = [box.id for box in records.boxes if box.id is not None]
    if records.format == "COCO" and all(isinstance(identity, int | str) for identity in own):
        again = (Place(annotation=own[i]) for i in _repeats(own))
        findings.add("annotation-id-twice", records.name, records.source, again)
    names = [composed(image.file_name).casefold() for image in records.images]
    files = (
        Place(records.images[i].file_name, image=records.images[i].id) for i in _repeats(names)
    )
    findings.add("file-twice", records.name, records.source, files)


def _check_categories(records: Records, findings: Findings) -> bool:
    """False where ids do not tell categories apart."""
    ids = [category.id for category in records.categories]
    names = [category.name for category in records.categories]

    def named(places: Iterable[int]) -> Iterator[Place]:
        return (Place(detail=f"category {ids[i]} ({names[i]})") for i in places)

    twice = list(_repeats(ids))
    findings.add("category-id-twice", records.name, records.source, named(twice))
    findings.add("category-name-twice", records.name, records.source, named(_repeats(names)))
    first = {" ".join(name.casefold().split()): name for name in reversed(names)}
    similar = (
        i for i, name in enumerate(names) if first[" ".join(name.casefold().split())] != name
    )
    findings.add("category-name-similar", records.name, records.source, named(similar))
    return not twice


def _repeats(values: Sequence[Any]) -> Iterator[int]:
    """Places of values that came before."""
    if len(set(values)) == len(values):
        return
    seen = set()
    for i, value in enumerate(values):
        if value in seen:
            yield i
        seen.add(value)


def _columns(records: Records, findings: Findings) -> Columns:
    places = {image.id: i for i, image in enumerate(records.images)}
    known = {category.id for category in records.categories}
    boxes, shaped = _boxes([box.bbox for box in records.boxes])
    categories = [box.category_id for box in records.boxes]
    columns = Columns(
        image=_whole(places.get(box.image_id, -1) for box in records.boxes),
        category=_whole(-1 if category is None else category for category in categories),
        boxes=boxes,
        areas=np.array([_area(box.area) for box in records.boxes], dtype=np.float64),
        crowd=np.array([bool(box.iscrowd) for box in records.boxes], dtype=np.bool_),
        sound=np.ones(len(records.boxes), dtype=np.bool_),
    )
    found = np.array([category in known for category in categories], dtype=np.bool_)
    beyond = shaped & ~(np.abs(boxes) < FARTHEST).all(axis=1)  # NaN is nowhere
    wrong = {
        "unknown-image": (columns.image < 0, lambda i: ""),
        "unknown-category": (~found, lambda i: f"category {categories[i]}"),
        "box-malformed": (~shaped, lambda i: _shown(records.boxes[i].bbox)),
        "box-not-finite": (beyond, lambda i: _shown(records.boxes[i].bbox)),
    }
    for code, (mask, detail) in wrong.items():
        mark(code, records, columns, findings, mask, detail)
    boxes[beyond] = nan
    shape = columns.boxes[:, 2:]
    negative = np.any(shape < 0, axis=1)
    for code, mask in (
        ("box-negative", negative),
        ("box-empty", np.any(shape == 0, axis=1) & ~negative),
    ):
        mark(code, records, columns, findings, mask, lambda i: show(boxes[i].tolist()))
    return columns


def _check_crowds(records: Records, columns: Columns, findings: Findings) -> None:
    mark("crowds", records, columns, findings, columns.crowd, lambda i: "", drop=False)
    every = Counter(columns.category[columns.sound].tolist())
    crowds = Counter(columns.category[columns.sound & columns.crowd].tolist())
    many = (
        Place(detail=f"{category.name}: {count} of {every[category.id]} boxes")
        for category in records.categories
        if (count := crowds[category.id])
        and (count == every[category.id] or count >= max(EVIDENCE, MANY * every[category.id]))
    )
    findings.add("crowds-many", records.name, records.source, many)


def mark(
    code: str,
    records: Records,
    columns: Columns,
    findings: Findings,
    mask: NDArray[np.bool_],
    detail: Any,
    drop: bool = True,
) -> None:
    """One finding of the boxes under a mask, which are then left out."""
    findings.add_at(
        code,
        records.name,
        records.source,
        np.flatnonzero(mask),  # type: ignore[arg-type]
        lambda i: box_place(records, columns, i, detail(i)),
    )
    if drop:
        columns.sound &= ~mask


def _shown(box: Any) -> str:
    is_row = isinstance(box, list) and {type(v) for v in box} <= {int, float, str}
    return show(box)[:80] if is_row else shown(box)


def _boxes(raw: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes as an array, and which of them are 4 numbers; the others are NaN."""
    if all(type(box) is list and len(box) == 4 for box in raw):
        if set(map(type, chain.from_iterable(raw))) <= {int, float}:
            with suppress(OverflowError):  # of whole numbers of hundreds of digits
                array = np.array(raw, dtype=np.float64).reshape(-1, 4)
                return array, np.ones(len(raw), dtype=np.bool_)
    shaped = np.array([_is_box(box) for box in raw], dtype=np.bool_)
    rows = [box if good else [np.nan] * 4 for box, good in zip(raw, shaped, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 4), shaped


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(type(v) is float or _is_id(v) for v in box)  # what fits an int fits a float
    )


def _area(value: Any) -> float:
    """An area that means something: many tools write 0 where they know of none."""
    return float(value) if value is not None and 0 < value < 2**63 else nan


def _whole(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, dtype=np.int64)


def _check_labels(records: Records, columns: Columns, findings: Findings) -> None:
    """Pictures without label files, or without boxes."""
    gone = records.unlabelled
    code = "mostly-unlabelled" if len(gone) > len(records.images) / 2 else "unlabelled"
    findings.add(code, records.name, records.source, (Place(name) for name in gone))
    filled = set(columns.image[columns.sound].tolist())
    unlabelled = set(gone)
    bare = (
        Place(image.file_name, image=image.id)
        for i, image in enumerate(records.images)
        if i not in filled and image.file_name not in unlabelled
    )
    findings.add("without-boxes", records.name, records.source, bare)
