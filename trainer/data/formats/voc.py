"""Reads Pascal VOC into records: an image set of names, or a folder of xml files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers.expat import ErrorString

from ..findings import Findings, Place, shown
from .folders import as_spelt, is_file, is_hidden, leads_out
from .records import BoxRecord, CategoryRecord, ImageRecord, Records

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"": False, "0": False, "1": True, "false": False, "true": True}
"""What `difficult` may say."""
ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes that are tried for a picture, in this order."""


@dataclass(frozen=True)
class _Entry:
    """One picture as a split lists it."""

    stem: str
    """The name of its xml file, with the folders below `Annotations` that hold it."""
    file: Path
    place: str
    """Where it is listed."""


@dataclass
class _Wrong:
    """Places of what is wrong in a split."""

    outside: list[Place] = field(default_factory=list)
    unreadable: list[Place] = field(default_factory=list)
    malformed: list[Place] = field(default_factory=list)
    contradicting: list[Place] = field(default_factory=list)


class _UnreadableError(Exception):
    """Why a file is no xml of VOC's. It quotes nothing of the file, which may be a link."""


def read_voc(records: Records, findings: Findings, classes: list[str]) -> bool:
    """Fill in what the xml files of a split say; False if one, or their list, cannot be read.

    Category ids are positions in `classes`, from 1; see `voc_classes`.
    """
    wrong = _Wrong()
    try:
        entries = _entries(records.source)
    except OSError as error:
        place = Place(records.source.name, detail=str(error.strerror))
        findings.add("file-unreadable", records.name, records.source, [place])
        return False
    for entry in entries:
        if leads_out(entry.stem):
            wrong.outside.append(Place(entry.place))
            continue
        if not is_file(entry.file):
            records.unlabelled.append(_add_image(records, entry, None).file_name)
            continue
        try:
            root = _parse(entry.file)
        except _UnreadableError as error:
            wrong.unreadable.append(Place(f"{entry.stem}.xml", detail=str(error)))
            continue
        image = _add_image(records, entry, root)
        _add_boxes(records, entry, image, root, classes, wrong)
        if other := _other_picture(records.folders, entry, root):
            detail = f"filename is {other}, taken for {image.file_name}"
            wrong.contradicting.append(Place(f"{entry.stem}.xml", image.id, detail=detail))
    records.categories = [CategoryRecord(i, name) for i, name in enumerate(classes, start=1)]
    findings.add("path-outside", records.name, records.source, wrong.outside)
    findings.add("file-unreadable", records.name, records.source, wrong.unreadable)
    findings.add("field-malformed", records.name, records.source, wrong.malformed)
    findings.add("xml-of-other-picture", records.name, records.source, wrong.contradicting)
    return not wrong.unreadable


def _add_boxes(
    records: Records,
    entry: _Entry,
    image: ImageRecord,
    root: ElementTree.Element,
    classes: list[str],
    wrong: _Wrong,
) -> None:
    """Add the objects of an xml file."""
    for number, element in enumerate(root.iter("object"), start=1):
        name = _text(element, "name")
        box = BoxRecord(
            id=f"{entry.stem}.xml object {number}",
            image_id=image.id,
            category_id=classes.index(name) + 1 if name in classes else None,
            bbox=_box(element),
        )
        records.boxes.append(box)
        difficult = _text(element, "difficult").lower()
        if difficult not in FLAGS:
            detail = f"object {number}: difficult is {shown(difficult)}"
            wrong.malformed.append(Place(f"{entry.stem}.xml", detail=detail))
        elif FLAGS[difficult]:
            records.difficult.append(box.id)


def voc_classes(sources: list[Path]) -> list[str]:
    """The names of all objects of all splits, sorted."""
    names = {name for source in sources for name in _names(source)}
    return sorted(names - {""})


def _names(source: Path) -> Iterator[str]:
    try:
        entries = _entries(source)
    except OSError:
        return  # reported when the split is read
    for entry in entries:
        if leads_out(entry.stem):
            continue
        try:
            root = _parse(entry.file)
        except _UnreadableError:
            continue  # reported when the split is read
        yield from (_text(element, "name") for element in root.iter("object"))


def _entries(source: Path) -> list[_Entry]:
    """The pictures of an image set, as ImageSets/Main/train.txt, or of a folder of xml files."""
    if source.is_dir():
        files = sorted(file for file in source.glob("*.xml") if not is_hidden(file.name))
        return [_Entry(file.stem, file, file.name) for file in files]
    # bytes that are no text name no file, and are reported as missing
    lines = source.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    # the image set of one class, as cat_train.txt, has a second column
    stems = [line.split()[0] if line.split()[1:] in _MARKS else line.strip() for line in lines]
    folder = annotations_of(source)
    return [
        _Entry(stem, as_spelt(folder / f"{stem}.xml"), f"{source.name} line {number}")
        for number, stem in enumerate(stems, start=1)
        if stem
    ]


_MARKS = (["1"], ["0"], ["-1"])


def annotations_of(image_set: Path) -> Path:
    """The folder of the xml files that an image set names, by its path as written."""
    return image_set.absolute().parent.parent.parent / "Annotations"


def _parse(file: Path) -> ElementTree.Element:
    """The root of an xml file. Raises _UnreadableError."""
    try:
        content = file.read_bytes()
        if b"<!ENTITY" in content.replace(b"\0", b""):  # in UTF-16 too
            raise _UnreadableError("defines entities, which can grow without bounds")
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise _UnreadableError(f"{ErrorString(error.code)}: line {line}, column {column}") from None
    except OSError as error:
        raise _UnreadableError(str(error.strerror)) from None
    except (ValueError, LookupError):
        raise _UnreadableError("has an encoding that cannot be read; save it as UTF-8") from None


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
    """The picture with the name of the xml file; the `filename` inside is often out of date."""
    inside = _text(root, "filename")
    for end in (Path(inside).suffix, *ENDINGS):
        name = f"{entry.stem}{end}"
        if end and any(is_file(folder / name) for folder in folders):
            return name
    if root is None:  # no such picture: do not quote the line, it may be of anyone's file
        return entry.place
    return inside or f"{entry.stem}.jpg"


def _other_picture(folders: list[Path], entry: _Entry, root: ElementTree.Element) -> str:
    """The `filename` inside an xml file, if it is another picture of the data set; else empty.

    A name that is no picture here is out of date, as after renaming, and says nothing.
    """
    inside = _text(root, "filename")
    name = str(Path(entry.stem).with_name(Path(inside).name)) if Path(inside).name else ""
    if not name or leads_out(inside) or Path(name).stem == Path(entry.stem).name:
        return ""
    return name if any(is_file(folder / name) for folder in folders) else ""


def _box(element: ElementTree.Element) -> Any:
    corners = [_number(_text(element, f"bndbox/{name}")) for name in CORNERS]
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
    """A declared width or height; None if it is unknown, for which many tools write 0.

    Text that is no number stays as it is: the check of types reports it.
    """
    number = _number(text)
    if number is None:
        return text or None
    return (int(number) if number.is_integer() else number) or None
