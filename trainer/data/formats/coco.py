"""Reads COCO json files into records; fields that nobody needs take no memory."""

import json
import mmap
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..findings import Findings, Place
from .records import BoxRecord, CategoryRecord, ImageRecord, Records
from .unsupported import foreign

LISTS: dict[str, type[msgspec.Struct]] = {
    "images": ImageRecord,
    "annotations": BoxRecord,
    "categories": CategoryRecord,
}


AnyFile = TypeVar("AnyFile", bound=msgspec.Struct)


class _File(msgspec.Struct, gc=False):
    """The lists of a COCO json. Other fields, such as segmentations, are skipped."""

    images: list[ImageRecord]
    annotations: list[BoxRecord]
    categories: list[CategoryRecord]


def read_coco(records: Records, findings: Findings) -> bool:
    """Fill in what a COCO json lists; False, with a finding, if it cannot be read."""
    try:
        file = _parse(records.source, _File)
    except (_UnreadableError, OSError) as error:
        detail = error.strerror if isinstance(error, OSError) else foreign(records.source)
        findings.add(
            "file-unreadable",
            records.name,
            records.source,
            [Place(records.source.name, detail=detail or str(error))],
        )
        return False
    records.images, records.boxes = file.images, file.annotations
    records.categories = file.categories
    return True


def picture_names(file: Path) -> list[str] | None:
    """The file names that a COCO json lists; None if it is no readable COCO json."""
    try:
        content = _parse(file, _Names)
    except (_UnreadableError, OSError):
        return None
    return [image.file_name for image in content.images if isinstance(image.file_name, str)]


class _Names(msgspec.Struct):
    """Shows whether a json is COCO's and where its pictures lie; read in a tenth of the time."""

    images: list[ImageRecord]
    categories: list[CategoryRecord]


class _UnreadableError(Exception):
    """Why a file is no COCO json."""


def _parse(file: Path, kind: type[AnyFile]) -> AnyFile | _File:
    if file.stat().st_size == 0:
        raise _UnreadableError("is empty")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        start = text[:4]
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
            raise _UnreadableError("is UTF-16 or UTF-32 text; save it as UTF-8")
        skipped = 3 if start[:3] == b"\xef\xbb\xbf" else 0  # a byte order mark
        with memoryview(text) as content, content[skipped:] as body:
            try:
                return msgspec.json.decode(body, type=kind)
            except RecursionError:
                raise _UnreadableError("is nested too deep") from None
            except (msgspec.DecodeError, UnicodeDecodeError):
                return _parse_slowly(bytes(body))


def _parse_slowly(body: bytes) -> _File:
    """Parse with Python's json, which accepts NaN and reports line and column."""
    try:
        content = json.loads(body.decode("utf-8"), parse_int=_number)
    except json.JSONDecodeError as error:
        raise _UnreadableError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise _UnreadableError("is nested too deep") from None
    lists = content if isinstance(content, dict) else {}
    lacking = [name for name in LISTS if not isinstance(lists.get(name), list)]
    if lacking:
        raise _UnreadableError(f"is no COCO json: it has no list {' and no list '.join(lacking)}")
    for name in LISTS:
        for i, item in enumerate(lists[name]):
            if type(item) is not dict:
                raise _UnreadableError(f"is no COCO json: {name}[{i}] is no object of fields")
    return _File(*(_items(lists[name], kind) for name, kind in LISTS.items()))


def _number(text: str) -> float:
    """An integer, or a float if it has too many digits for an id or a pixel.

    Python refuses to make an int of some thousand digits.
    """
    return int(text) if len(text) < 20 else float(text)


def _items(items: list[dict[str, Any]], kind: type[msgspec.Struct]) -> Any:
    known = kind.__struct_fields__
    return [kind(**{name: item[name] for name in known if name in item}) for item in items]
