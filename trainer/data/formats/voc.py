"""Pascal VOC: an image set of names, or a folder of xml files, read into records."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers.expat import ErrorString

from ..findings import Findings, Place, shown
from .folders import as_spelt, is_hidden, leads_out
from .records import BoxRecord, CategoryRecord, ImageRecord, Records

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"": False, "0": False, "1": True, "false": False, "true": True}
"""What `difficult` may say."""


@dataclass(frozen=True)
class _Entry:
    """What a split lists of one picture."""

    stem: str
    """The name of its xml file, with the folders below `Annotations` that hold it."""
    file: Path
    place: str
    """Where it is listed."""


class _Unreadable(Exception):
    """Why a file is no xml of VOC's, without a word of the file: it may be a link to anyone's."""


def read_voc(records: Records, findings: Findings, classes: list[str]) -> bool:
    """Fill in what the xml files of a split say; False where one cannot be read.

    Category ids are places in `classes`, from 1; see `voc_classes`.
    """
    unreadable, unflagged, outside = [], [], []
    for entry in _entries(records.source):
        if leads_out(entry.stem):
            outside.append(Place(entry.place))
            continue
        if not os.path.isfile(entry.file):
            records.unlabelled.append(_add_image(records, entry, None).file_name)
            continue
        try:
            root = _parse(entry.file)
        except _Unreadable as error:
            unreadable.append(Place(f"{entry.stem}.xml", detail=str(error)))
            continue
        image = _add_image(records, entry, root)
        for number, thing in enumerate(root.iter("object"), start=1):
            name = _text(thing, "name")
            box = BoxRecord(
                id=f"{entry.stem}.xml object {number}",
                image_id=image.id,
                category_id=classes.index(name) + 1 if name in classes else None,
                bbox=_box(thing),
            )
            records.boxes.append(box)
            difficult = _text(thing, "difficult").lower()
            if difficult not in FLAGS:
                detail = f"object {number}: difficult is {shown(difficult)}"
                unflagged.append(Place(f"{entry.stem}.xml", detail=detail))
            elif FLAGS[difficult]:
                records.difficult.append(box.id)
    records.categories = [CategoryRecord(i, name) for i, name in enumerate(classes, start=1)]
    findings.add("path-outside", records.name, records.source, outside)
    findings.add("file-unreadable", records.name, records.source, unreadable)
    findings.add("field-malformed", records.name, records.source, unflagged)
    return not unreadable


def voc_classes(sources: list[Path]) -> list[str]:
    """The names of all objects of all splits, in the order of the alphabet."""
    names = set()
    for source in sources:
        for entry in _entries(source):
            if leads_out(entry.stem):
                continue
            try:
                names |= {_text(thing, "name") for thing in _parse(entry.file).iter("object")}
            except _Unreadable:
                continue  # told when the split is read
    return sorted(names - {""})


def _entries(source: Path) -> list[_Entry]:
    """Of an image set, as ImageSets/Main/train.txt, or of a folder of xml files."""
    if source.is_dir():
        files = sorted(file for file in source.glob("*.xml") if not is_hidden(file.name))
        return [_Entry(file.stem, file, file.name) for file in files]
    # bytes that are no text name no file, and are told as such
    lines = source.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    # a class's own set, as cat_train.txt, has a second column
    stems = [line.split()[0] if line.split()[1:] in _MARKS else line.strip() for line in lines]
    folder = annotations_of(source)
    return [
        _Entry(stem, as_spelt(folder / f"{stem}.xml"), f"{source.name} line {number}")
        for number, stem in enumerate(stems, start=1)
        if stem
    ]


_MARKS = (["1"], ["0"], ["-1"])


def annotations_of(image_set: Path) -> Path:
    """The folder of the xml files that an image set names, of its path as written."""
    return image_set.absolute().parent.parent.parent / "Annotations"


def _parse(file: Path) -> ElementTree.Element:
    """The root of an xml file. Raises _Unreadable."""
    try:
        content = file.read_bytes()
        if b"<!ENTITY" in content.replace(b"\0", b""):  # in UTF-16 too
            raise _Unreadable("defines entities, which can grow without bounds")
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise _Unreadable(f"{ErrorString(error.code)}: line {line}, column {column}") from None
    except OSError as error:
        raise _Unreadable(str(error.strerror)) from None
    except (ValueError, LookupError):
        raise _Unreadable("is of an encoding that cannot be read; save it as UTF-8") from None


def _add_image(records: Records, entry: _Entry, root: ElementTree.Element | None) -> ImageRecord:
    image = ImageRecord(
        id=len(records.images) + 1,
        file_name=_picture(records.folders, entry, root),
        width=_side(_text(root, "size/width")),
        height=_side(_text(root, "size/height")),
    )
    records.images.append(image)
    return image


def _picture(folders: list[Path], entry: _Entry, root: ElementTree.Element | None) -> str:
    """The picture of an xml file: of its own name, for what it says inside is often stale."""
    said = _text(root, "filename")
    for end in (Path(said).suffix, *ENDINGS):
        name = f"{entry.stem}{end}"
        if end and any(os.path.isfile(folder / name) for folder in folders):
            return name
    if root is None:  # nothing of that name is here: it may be a line of anyone's file
        return entry.place
    return said or f"{entry.stem}.jpg"


ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp", ".tif", ".tiff")


def _box(thing: ElementTree.Element) -> Any:
    corners = [_number(_text(thing, f"bndbox/{name}")) for name in CORNERS]
    if None in corners:
        return corners
    x1, y1, x2, y2 = corners
    return [x1, y1, x2 - x1, y2 - y1]  # type: ignore[operator]


def _text(element: ElementTree.Element | None, path: str) -> str:
    return (element.findtext(path) or "").strip() if element is not None else ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _side(text: str) -> float | str | None:
    """A declared width or height; many tools write nothing or 0 where they know of none. What is no
    number stays as it is, and is found out as such."""
    number = _number(text)
    if number is None:
        return text or None
    return (int(number) if number.is_integer() else number) or None
