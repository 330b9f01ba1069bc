"""Checks of a split's records: fields, ids, names, crowds and label files."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import NoneType
from typing import Any

import numpy as np
from msgspec import UNSET

from ..findings import Findings, Place, shown
from ..formats.file_names import composed
from ..formats.records import Records
from .columns import Columns, is_id, mark, to_columns

REQUIRED = {
    "images": ("id", "file_name"),
    "boxes": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""Fields without which an entry of each list means nothing."""
COCO_LISTS = {"images": "images", "boxes": "annotations", "categories": "categories"}
"""COCO's names of the lists, for messages."""
MANY, EVIDENCE = 0.2, 4
"""Crowds of a class are an error from this fraction of its boxes and this number of them on.
About 1 % of COCO's boxes are crowds. A tool that exports masks as crowds marks all of them, or
those that were drawn with one of its brushes. One or two may be a small part of COCO."""


def _is_flag(value: Any) -> bool:
    return value in (0, 1, None)  # and so true, false, 0.0 and 1.0, but no text


def _is_number(value: Any) -> bool:
    return type(value) in {int, float, NoneType}


FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "images": {
        "id": is_id,
        "file_name": lambda value: isinstance(value, str) and value != "",
        "width": _is_number,
        "height": _is_number,
    },
    "boxes": {
        "id": lambda value: type(value) in {int, str, NoneType},  # it only names a place
        "image_id": is_id,
        # None: the reader of a format knows no such class
        "category_id": lambda value: value is None or is_id(value),
        "iscrowd": _is_flag,
        "ignore": _is_flag,
        "area": _is_number,
    },
    "categories": {
        "id": is_id,
        "name": lambda value: isinstance(value, str),
        "supercategory": lambda value: not isinstance(value, list | dict),
    },
}
"""Whether a field's value has the right type. `bbox` has a finding for itself."""


def check_records(records: Records, findings: Findings, crowds: str) -> Columns | None:
    """Check ids, names and boxes of a split, and convert its boxes to arrays.

    Args:
        records: What the split's files say.
        findings: Gets what is wrong.
        crowds: `Data.crowds`, what crowds count as.

    Returns:
        The arrays; None if nothing more can be said of the split.
    """
    if not records.images:
        findings.add("split-empty", records.name, records.source, [Place()])
        return None
    if not _check_fields(records, findings):
        return None
    _check_ids(records, findings)
    if not _check_categories(records, findings):
        return None
    columns = to_columns(records, findings)
    _check_crowds_and_ignored(records, columns, findings, crowds)
    if not (columns.sound & ~columns.crowd).any():
        findings.add("split-without-boxes", records.name, records.source, [Place()])
    difficult = (Place(annotation=box_id) for box_id in records.difficult)
    findings.add("difficult", records.name, records.source, difficult)
    _check_labels(records, columns, findings)
    return columns


def _check_fields(records: Records, findings: Findings) -> bool:
    """Check that required fields are present and all fields have their type; False if not."""
    before = len(findings.items)
    for part, fields in FIELDS.items():
        entries = getattr(records, part)
        lacking = (
            Place(detail=f"{_entry_name(part, i, entry)} has no {' and no '.join(missing)}")
            for i, entry in enumerate(entries)
            if (missing := [name for name in REQUIRED[part] if getattr(entry, name) is UNSET])
        )
        findings.add("field-missing", records.name, records.source, lacking)
        wrong = (
            Place(_file(entry), detail=f"{_entry_name(part, i, entry)}: {name} is {shown(value)}")
            for name, is_right in fields.items()
            for i, entry in enumerate(entries)
            if not is_right(value := getattr(entry, name)) and value is not UNSET
        )
        findings.add("field-malformed", records.name, records.source, wrong)
    return len(findings.items) == before


def _entry_name(part: str, i: int, entry: Any) -> str:
    """An entry by its position in the file, from 0, and by its id if it has one."""
    id_text = f" (id {entry.id})" if is_id(entry.id) else ""
    return f"{COCO_LISTS[part]}[{i}]{id_text}"


def _file(entry: Any) -> str:
    name = getattr(entry, "file_name", "")
    return name if isinstance(name, str) else ""


def _check_ids(records: Records, findings: Findings) -> None:
    """Check that image ids, annotation ids and file names do not repeat."""

    def image_places(positions: Iterable[int]) -> Iterator[Place]:
        images = records.images
        return (Place(str(images[i].file_name), image=images[i].id) for i in positions)

    repeated = _repeats([image.id for image in records.images])
    findings.add("image-id-twice", records.name, records.source, image_places(repeated))
    ids = [box.id for box in records.boxes if box.id is not None]
    if records.format == "COCO" and all(isinstance(box_id, int | str) for box_id in ids):
        repeated_ids = (Place(annotation=ids[i]) for i in _repeats(ids))
        findings.add("annotation-id-twice", records.name, records.source, repeated_ids)
    names = [composed(image.file_name).casefold() for image in records.images]
    findings.add("file-twice", records.name, records.source, image_places(_repeats(names)))


def _check_categories(records: Records, findings: Findings) -> bool:
    """Check ids and names of the categories; False if an id stands for several."""
    ids = [category.id for category in records.categories]
    names = [category.name for category in records.categories]

    def places(positions: Iterable[int]) -> Iterator[Place]:
        return (Place(detail=f"category {ids[i]} ({names[i]})") for i in positions)

    repeated = list(_repeats(ids))
    findings.add("category-id-twice", records.name, records.source, places(repeated))
    findings.add("category-name-twice", records.name, records.source, places(_repeats(names)))
    plain = [" ".join(name.casefold().split()) for name in names]
    first = dict(zip(reversed(plain), reversed(names), strict=True))
    similar = (i for i, name in enumerate(names) if first[plain[i]] != name)
    findings.add("category-name-similar", records.name, records.source, places(similar))
    return not repeated


def _repeats(values: Sequence[Any]) -> Iterator[int]:
    """Positions of values that occur earlier too."""
    if len(set(values)) == len(values):
        return
    seen = set()
    for i, value in enumerate(values):
        if value in seen:
            yield i
        seen.add(value)


def _check_crowds_and_ignored(
    records: Records, columns: Columns, findings: Findings, crowds: str
) -> None:
    """Report crowds and ignored boxes; crowds count as objects if the user says so."""
    if crowds == "ignore":
        _check_crowds(records, columns, findings)
    else:
        columns.crowd[:] = False
    ignored = np.array([bool(box.ignore) for box in records.boxes], dtype=np.bool_)
    mark("ignored", records, columns, findings, ignored, lambda i: "", drop=False)
    columns.crowd |= ignored


def _check_crowds(records: Records, columns: Columns, findings: Findings) -> None:
    mark("crowds", records, columns, findings, columns.crowd, lambda i: "", drop=False)
    boxes = Counter(columns.category[columns.sound].tolist())
    crowds = Counter(columns.category[columns.sound & columns.crowd].tolist())
    many = (
        Place(detail=f"{category.name}: {count} of {boxes[category.id]} boxes")
        for category in records.categories
        if (count := crowds[category.id])
        and (count == boxes[category.id] or count >= max(EVIDENCE, MANY * boxes[category.id]))
    )
    findings.add("crowds-many", records.name, records.source, many)


def _check_labels(records: Records, columns: Columns, findings: Findings) -> None:
    """Report pictures without label files, and pictures without boxes."""
    names = records.unlabelled
    code = "mostly-unlabelled" if len(names) > len(records.images) / 2 else "unlabelled"
    hint, source = records.label_hint, records.source
    findings.add_at(code, records.name, source, range(len(names)), lambda i: Place(names[i]), hint)
    with_boxes = set(columns.image[columns.sound].tolist())
    unlabelled = set(names)
    without = (
        Place(image.file_name, image=image.id)
        for i, image in enumerate(records.images)
        if i not in with_boxes and image.file_name not in unlabelled
    )
    findings.add("without-boxes", records.name, records.source, without)
