"""What annotation files say, in COCO's terms, with nothing of it trusted yet."""

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
    """One annotation. There may be a million: without the collector's header."""

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
    """One split as its files say."""

    name: str
    """train, val or test."""
    source: Path
    """The annotation file or folder."""
    format: str
    folders: list[Path]
    """Where the pictures may lie, in the order to look; file names must not lead out of them."""
    images: list[ImageRecord] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    """The picture of each image, where the format names them by path: nothing is looked up then."""
    boxes: list[BoxRecord] = field(default_factory=list)
    categories: list[CategoryRecord] = field(default_factory=list)
    relative: bool = False
    """Whether boxes are shares of width and height, from 0 to 1."""
    unlabelled: list[str] = field(default_factory=list)
    """Pictures without a label file, where a format has one for each."""
    difficult: list[Any] = field(default_factory=list)
    """Ids of annotations that VOC marks so."""
