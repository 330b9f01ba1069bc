"""Formats that are not read: what a file is, and what to make of it."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from .folders import files_below

Named = tuple[str, str]
"""What a file is, and the next step."""
CVAT = "annotations.xml"
"""CVAT's own xml, in every export of it."""
CONVERT = "convert it to COCO (labelme2coco does that), YOLO or Pascal VOC"
EXPORT = "export it as COCO, YOLO or Pascal VOC"
UNPACK = "unpack it, and give the folder"
NAMES = {
    "_annotations.csv": ("a CSV of boxes", EXPORT),
    "_annotations.createml.json": ("CreateML", EXPORT),
    "_darknet.labels": ("Darknet without a data.yaml", EXPORT),
    "obj.data": ("Darknet's obj.data", f"{EXPORT} (CVAT: Ultralytics YOLO Detection)"),
    "obj.names": ("Darknet's obj.names", f"{EXPORT} (CVAT: Ultralytics YOLO Detection)"),
    "samples.json": ("FiftyOne's own json", EXPORT),
}
"""By the name of a file."""
SUFFIXES = {
    ".tfrecord": ("TFRecord", EXPORT),
    ".csv": (
        "a CSV of boxes",
        "convert it to a COCO json, a row becoming an annotation with bbox: [x, y, width, height]",
    ),
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), ("an archive", UNPACK)),
}
OBJECTS = (
    ({"shapes", "imagePath"}, "LabelMe's json of one picture", CONVERT),
    ({"_via_img_metadata"}, "VIA's own json", EXPORT),
    ({"items", "categories"}, "Datumaro's json", EXPORT),
)
"""By fields of a json that holds an object."""
ROWS = (
    ({"data", "annotations"}, "Label Studio's own json", EXPORT),
    ({"image", "annotations"}, "CreateML", EXPORT),
    ({"image_id", "bbox", "score"}, "a json of COCO results", "give what is true, not detections"),
)
"""By fields of the first entry of a json that holds a list."""
BOX_COLUMNS = re.compile(
    r"b_?box|x_?min|\bx_?1\b|\bleft\b|predictionstring|region_shape|\bx\b.*\by\b.*\bw"
    r"|(,\s*-?\d+(\.\d+)?){4}",
    re.IGNORECASE,
)
"""In the first line of a CSV of boxes, whoever wrote it: Kaggle's, TensorFlow's, Open Images'."""
LARGEST = 100_000_000
"""Bytes of a json that is opened to see what it is."""
TRIED = 20
"""Files of a suffix that are opened."""


def foreign(file: Path) -> str:
    """What an annotation file is whose format is not read, and the next step; empty for others."""
    suffix = file.suffix.lower()
    named = NAMES.get(file.name) or SUFFIXES.get(suffix)
    if named is None and suffix == ".json":
        named = _by_fields(file)
    if suffix == ".xml":
        named = _by_root(file)
    return f"{named[0]} is not read; {named[1]}" if named else ""


def foreign_in(folder: Path) -> str:
    """The same of the first such file in a folder, with its path; of tables the one for train."""
    tried: Counter[str] = Counter()
    tables = []
    for file in sorted(files_below(folder)):
        suffix = file.suffix.lower()
        tried[suffix] += 1
        if suffix == ".csv" and file.name not in NAMES:
            tables.append(file)
        elif file.name in NAMES or suffix == ".tfrecord" or _may_be(suffix, tried[suffix]):
            if text := foreign(file):
                return f"{file}: {text}"
    tables.sort(key=lambda file: "train" not in file.name.lower())
    holding = (file for file in tables[:TRIED] if BOX_COLUMNS.search(_start(file).split("\n")[0]))
    return next((f"{file}: {foreign(file)}" for file in holding), "")


def _may_be(suffix: str, number: int) -> bool:
    return suffix in {".json", ".xml"} and number <= TRIED


def _by_fields(file: Path) -> Named | None:
    try:
        if file.stat().st_size > LARGEST:
            return None
        content: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
    kinds = ROWS if isinstance(content, list) else OBJECTS
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict):
        return None
    return next(((what, step) for fields, what, step in kinds if fields <= first.keys()), None)


def _by_root(file: Path) -> Named | None:
    root = re.search(r"<(annotations?)\b", _start(file))
    if root is None:
        return None
    if root[1] == "annotations":
        return "CVAT's own xml", EXPORT
    return "the xml of one picture alone", "give the folder that it is in"


def _start(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return stream.read(4000)
    except OSError:
        return ""
