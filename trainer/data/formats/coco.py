"""COCO json files, read into records; only what is needed of them takes memory."""

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
    """The lists of a COCO json. Fields not named here, as segmentations, are skipped over."""

    images: list[ImageRecord]
    annotations: list[BoxRecord]
    categories: list[CategoryRecord]


def read_coco(records: Records, findings: Findings) -> bool:
    """Fill in what a COCO json lists; False where it cannot be read, which is then a finding."""
    try:
        file = _parse(records.source, _File)
    except _Unreadable as error:
        findings.add(
            "file-unreadable",
            records.name,
            records.source,
            [Place(records.source.name, detail=foreign(records.source) or str(error))],
        )
        return False
    records.images, records.boxes = file.images, file.annotations
    records.categories = file.categories
    return True


def picture_names(file: Path) -> list[str] | None:
    """The file names that a COCO json lists; None where it is none that can be read."""
    try:
        listed = _parse(file, _Names)
    except (_Unreadable, OSError):
        return None
    return [image.file_name for image in listed.images if isinstance(image.file_name, str)]


class _Names(msgspec.Struct):
    """What tells that a json is COCO's, and where its pictures lie: read in a tenth of the time."""

    images: list[ImageRecord]
    categories: list[CategoryRecord]


class _Unreadable(Exception):
    """Why a file is no COCO json."""


def _parse(file: Path, kind: type[AnyFile]) -> AnyFile | _File:
    if file.stat().st_size == 0:
        raise _Unreadable("is empty")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        start = text[:4]
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
            raise _Unreadable("is UTF-16 or UTF-32 text; save it as UTF-8")
        with memoryview(text) as whole, whole[3 if start[:3] == b"\xef\xbb\xbf" else 0 :] as body:
            try:
                return msgspec.json.decode(body, type=kind)
            except RecursionError:
                raise _Unreadable("is nested too deep") from None
            except (msgspec.DecodeError, UnicodeDecodeError):
                return _explained(bytes(body))


def _explained(body: bytes) -> _File:
    """Once more by Python's own reader, which takes NaN and tells line and column."""
    try:
        content = json.loads(body.decode("utf-8"), parse_int=_number)
    except json.JSONDecodeError as error:
        raise _Unreadable(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise _Unreadable(f"is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise _Unreadable("is nested too deep") from None
    lists = content if isinstance(content, dict) else {}
    lacking = [name for name in LISTS if not isinstance(lists.get(name), list)]
    if lacking:
        raise _Unreadable(f"is no COCO json: it has no list {' and no list '.join(lacking)}")
    strange = [
        f"{name}[{i}]"
        for name in LISTS
        for i, item in enumerate(lists[name])
        if type(item) is not dict
    ]
    if strange:
        raise _Unreadable(f"is no COCO json: {strange[0]} is no object of fields")
    return _File(*(_items(lists[name], kind) for name, kind in LISTS.items()))


def _number(text: str) -> float:
    """A whole number; one that is neither id nor pixel as a float, for Python makes no int of some
    thousand digits."""
    return int(text) if len(text) < 20 else float(text)


def _items(items: list[dict[str, Any]], kind: type[msgspec.Struct]) -> Any:
    known = kind.__struct_fields__
    return [kind(**{name: item[name] for name in known if name in item}) for item in items]
