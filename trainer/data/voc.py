"""Pascal VOC: an image set of names, or a folder of xml files, read into records."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .findings import Findings, Place
from .records import BoxRecord, CategoryRecord, ImageRecord, Records

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(records: Records, findings: Findings, classes: list[str]) -> bool:
    """Fill in what the xml files of a split say; False where none can be read.

    Category ids are places in `classes`, from 1; see `voc_classes`.
    """
    unreadable = []
    for file in xml_files(records.source):
        try:
            root = ElementTree.parse(file).getroot()
        except FileNotFoundError:
            records.unlabelled.append(_add_image(records, file, None).file_name)
            continue
        except (ElementTree.ParseError, OSError, UnicodeError) as error:
            unreadable.append(Place(file.name, detail=str(error)))
            continue
        image = _add_image(records, file, root)
        for number, thing in enumerate(root.iter("object"), start=1):
            name = _text(thing, "name")
            box = BoxRecord(
                id=f"{file.name} object {number}",
                image_id=image.id,
                category_id=classes.index(name) + 1 if name in classes else None,
                bbox=_box(thing),
            )
            records.boxes.append(box)
            if _text(thing, "difficult") == "1":
                records.difficult.append(box.id)
    records.categories = [CategoryRecord(i, name) for i, name in enumerate(classes, start=1)]
    findings.add("file-unreadable", records.name, records.source, unreadable)
    return not unreadable


def voc_classes(sources: list[Path]) -> list[str]:
    """The names of all objects of all splits, in the order of the alphabet."""
    names = set()
    for source in sources:
        for file in xml_files(source):
            try:
                names |= {_text(thing, "name") for thing in ElementTree.parse(file).iter("object")}
            except (ElementTree.ParseError, OSError, UnicodeError):
                continue  # told when the split is read
    return sorted(names - {""})


def xml_files(source: Path) -> list[Path]:
    """The xml files of an image set, as ImageSets/Main/train.txt, or of a folder."""
    if source.is_dir():
        return sorted(source.glob("*.xml"))
    # bytes that are no text name no file, and are told as such
    lines = source.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    # a class's own set, as cat_train.txt, has a second column
    stems = [line.split()[0] if line.split()[1:] in _MARKS else line.strip() for line in lines]
    return [annotations_of(source) / f"{stem}.xml" for stem in stems if stem]


_MARKS = (["1"], ["0"], ["-1"])


def annotations_of(image_set: Path) -> Path:
    """The folder of the xml files that an image set names."""
    return image_set.resolve().parent.parent.parent / "Annotations"


def _add_image(records: Records, file: Path, root: ElementTree.Element | None) -> ImageRecord:
    name = _text(root, "filename") if root is not None else ""
    image = ImageRecord(
        id=len(records.images) + 1,
        file_name=_picture(records.folders, file.stem, name),
        width=_whole(_text(root, "size/width")) if root is not None else None,
        height=_whole(_text(root, "size/height")) if root is not None else None,
    )
    records.images.append(image)
    return image


def _picture(folders: list[Path], stem: str, said: str) -> str:
    """The picture of an xml file: of its own name, for what it says inside is often stale."""
    for name in (f"{stem}{Path(said).suffix}", *(f"{stem}{end}" for end in ENDINGS)):
        if name != stem and any((folder / name).is_file() for folder in folders):
            return name
    return said or f"{stem}.jpg"


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


def _whole(text: str) -> int | None:
    number = _number(text)
    return int(number) if number and number.is_integer() else None
