"""What annotation files say, in COCO's terms. Nothing of it is checked yet."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import UNSET, Struct


class ImageRecord(Struct):
    """One picture; a field that the file lacks is UNSET."""

    id: Any = UNSET
    file_name: Any = UNSET
    width: Any = None
    height: Any = None


class BoxRecord(Struct, gc=False):
    """One annotation. There may be a million, so they are not tracked by garbage collection."""

    id: Any = None
    image_id: Any = UNSET
    category_id: Any = UNSET
    bbox: Any = UNSET
    """x, y, width, height in pixels, unless `Records.relative`."""
    iscrowd: Any = 0
    ignore: Any = 0
    area: Any = None
    """Square pixels."""


class CategoryRecord(Struct):
    """One class."""

    id: Any = UNSET
    name: Any = UNSET
    supercategory: Any = None


@dataclass
class Records:
    """One split as its annotation files describe it."""

    name: str
    """train, val or test."""
    source: Path
    """The annotation file or folder."""
    format: str
    folders: list[Path]
    """Where the pictures may lie, in the order to look. File names must not lead out of them."""
    images: list[ImageRecord] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    """The picture of each image, if the format names it by path; then no name is looked up."""
    boxes: list[BoxRecord] = field(default_factory=list)
    categories: list[CategoryRecord] = field(default_factory=list)
    relative: bool = False
    """Whether boxes are fractions of width and height, from 0 to 1."""
    unlabelled: list[str] = field(default_factory=list)
    """Pictures without a label file, in a format that has one for each picture."""
    label_hint: str = ""
    """Why label files may be missing, and what to do."""
    difficult: list[Any] = field(default_factory=list)
    """Ids of the annotations that VOC marks as difficult."""
