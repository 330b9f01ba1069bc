"""Reads each split of a data set into records and arrays, whatever its format."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config import Data
from ..dataset import SPLIT_NAMES, Category
from ..findings import Findings, Place
from ..formats.coco import read_coco
from ..formats.file_names import composed
from ..formats.folders import is_folder
from ..formats.records import Records
from ..formats.voc import annotations_of, read_voc, voc_classes
from ..formats.yolo import read_yolo
from ..formats.yolo_yaml import CLASS_LIST
from .columns import Columns
from .decoding_cache import PictureFacts
from .record_checks import check_records

FORMATS = {".json": "COCO", ".yaml": "YOLO", ".yml": "YOLO", ".txt": "VOC"}
"""The format by an annotation file's suffix. Other files are COCO, and folders VOC."""


@dataclass
class SplitInput:
    """One split while it is checked."""

    records: Records
    columns: Columns
    files: list[Path | None] = field(default_factory=list)
    """The picture of each image, None if there is none that may be read."""
    facts: list[PictureFacts | None] = field(default_factory=list)
    """What was decoded of each; empty if no picture is decoded."""

    @property
    def file_names(self) -> list[Any]:
        """The names as listed."""
        return [image.file_name for image in self.records.images]


def read_splits(data: Data, findings: Findings) -> dict[str, SplitInput]:
    """Read each split; those that cannot be read have findings alone."""
    sources = {
        name: file
        for name in SPLIT_NAMES
        if (file := getattr(data, name)) is not None and _exists(file, name, findings)
    }
    classes: list[str] = []
    if format_of(data.train) == "VOC":
        classes = voc_classes([file for file in sources.values() if format_of(file) == "VOC"])
    inputs = {}
    for name, source in sources.items():
        records = Records(name, source, format_of(source), _image_folders(data, name))
        if _read_format(records, classes, findings):
            columns = check_records(records, findings, data.crowds)
            if columns is not None:
                inputs[name] = SplitInput(records, columns)
    return inputs


def _exists(source: Path, name: str, findings: Findings) -> bool:
    """Whether the annotations of a split can be looked up; if not, with a finding."""
    try:
        source.stat()
    except (FileNotFoundError, NotADirectoryError):
        findings.add("file-missing", name, source, [Place(str(source))])
    except OSError as error:  # its folder is closed to this account, or its name is too long
        place = Place(source.name, detail=str(error.strerror))
        findings.add("file-unreadable", name, source, [place])
    else:
        return True
    return False


def _read_format(records: Records, classes: list[str], findings: Findings) -> bool:
    if records.format == "COCO":
        return read_coco(records, findings)
    if records.format == "YOLO":
        return read_yolo(records, findings)
    return read_voc(records, findings, classes)


def format_of(source: Path) -> str:
    """COCO, YOLO or VOC, by the name of a split's annotation file or folder."""
    if source.name == CLASS_LIST:
        return "YOLO"
    return "VOC" if is_folder(source) else FORMATS.get(source.suffix.lower(), "COCO")


def _image_folders(data: Data, name: str) -> list[Path]:
    """Where the pictures of a split may lie, in the order to look."""
    images = data.images.get(name) if isinstance(data.images, dict) else data.images  # type: ignore[call-overload]
    if images is not None:
        return [images]
    source: Path = getattr(data, name)
    if is_folder(source):
        return [source, source.parent / "JPEGImages", source.parent / "images"]
    if format_of(source) == "VOC":
        annotations = annotations_of(source)
        return [annotations.parent / "JPEGImages", annotations.parent / "images", annotations]
    return [source.parent, source.parent / "images"]


def merge_categories(
    inputs: dict[str, SplitInput], notes: list[str], findings: Findings
) -> tuple[Category, ...]:
    """The classes of all splits by id, without Roboflow's unused root category."""
    names: dict[int, str] = {}
    used: set[int] = set()
    supers = set()
    for name, split in inputs.items():
        differing = []
        for category in split.records.categories:
            first = names.setdefault(category.id, category.name)
            if composed(first) != composed(category.name):
                text = f"category {category.id} is {category.name!r} here and {first!r} elsewhere"
                differing.append(Place(detail=text))
            if category.supercategory != category.name:  # some tools write the name twice
                supers.add(category.supercategory)
        findings.add("category-differs", name, split.records.source, differing)
        used |= set(split.columns.category.tolist())
    roots = [i for i, name in names.items() if i not in used and name in supers]
    for root in roots:
        notes.append(f"category {root} ({names[root]}) is a root without boxes: dropped")
    return tuple(Category(i, names[i]) for i in sorted(names) if i not in roots)
