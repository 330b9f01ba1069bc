"""Formats that are not read: what a file is, and the next step."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from .folders import files_below

Format = tuple[str, str]
"""What a file is, and the next step."""
CVAT = "annotations.xml"
"""CVAT's xml, in every export of that format."""
CONVERT = "convert it to COCO (labelme2coco does that), YOLO or Pascal VOC"
EXPORT = "export it as COCO, YOLO or Pascal VOC"
UNPACK = "unpack it, and give the folder"
NAMES = {
    "_annotations.csv": ("a CSV of boxes", EXPORT),
    "_annotations.createml.json": ("CreateML", EXPORT),
    "_darknet.labels": ("Darknet without a data.yaml", EXPORT),
    "obj.data": ("Darknet's obj.data", f"{EXPORT} (CVAT: Ultralytics YOLO Detection)"),
    "obj.names": ("Darknet's obj.names", f"{EXPORT} (CVAT: Ultralytics YOLO Detection)"),
    "samples.json": ("FiftyOne's samples.json", EXPORT),
}
"""By the name of a file."""
SUFFIXES = {
    ".tfrecord": ("TFRecord", EXPORT),
    ".csv": (
        "a CSV of boxes",
        "convert it to a COCO json, each row to an annotation with bbox: [x, y, width, height]",
    ),
    **dict.fromkeys((".zip", ".tar", ".gz", ".7z", ".rar"), ("an archive", UNPACK)),
}
OBJECTS = (
    ({"shapes", "imagePath"}, "LabelMe's json of one picture", CONVERT),
    ({"_via_img_metadata"}, "VIA's json", EXPORT),
    ({"items", "categories"}, "Datumaro's json", EXPORT),
)
"""By fields of a json that holds an object."""
ROWS = (
    ({"data", "annotations"}, "Label Studio's json", EXPORT),
    ({"image", "annotations"}, "CreateML", EXPORT),
    ({"image_id", "bbox", "score"}, "a json of COCO results", "give ground truth, not detections"),
)
"""By fields of the first entry of a json that holds a list."""
BOX_COLUMNS = re.compile(
    r"b_?box|x_?min|\bx_?1\b|\bleft\b|predictionstring|region_shape|\bx\b.*\by\b.*\bw"
    r"|(,\s*-?\d+(\.\d+)?){4}",
    re.IGNORECASE,
)
"""Matches the first line of a CSV of boxes: Kaggle's, TensorFlow's, Open Images'."""
LARGEST = 100_000_000
"""Most bytes of a json that is opened to see what it is."""
TRIED = 20
"""Most files of one suffix that are opened."""


def foreign(file: Path) -> str:
    """The unsupported format of an annotation file, and the next step; empty for other files."""
    suffix = file.suffix.lower()
    format = NAMES.get(file.name) or SUFFIXES.get(suffix)
    if format is None and suffix == ".json":
        format = _by_fields(file)
    if suffix == ".xml":
        format = _by_root(file)
    return f"{format[0]} is not read; {format[1]}" if format else ""


def foreign_in(folder: Path) -> str:
    """The same for the first such file in a folder, with its path; of CSVs the one for train."""
    tried: Counter[str] = Counter()
    tables = []
    for file in sorted(files_below(folder)):
        suffix = file.suffix.lower()
        tried[suffix] += 1
        if suffix == ".csv" and file.name not in NAMES:
            tables.append(file)
        elif (file.name in NAMES or suffix == ".tfrecord" or _is_tried(suffix, tried[suffix])) and (
            text := foreign(file)
        ):
            return f"{file}: {text}"
    tables.sort(key=lambda file: "train" not in file.name.lower())
    with_boxes = (f for f in tables[:TRIED] if BOX_COLUMNS.search(_start(f).split("\n")[0]))
    return next((f"{file}: {foreign(file)}" for file in with_boxes), "")


def _is_tried(suffix: str, number: int) -> bool:
    return suffix in {".json", ".xml"} and number <= TRIED


def _by_fields(file: Path) -> Format | None:
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


def _by_root(file: Path) -> Format | None:
    root = re.search(r"<(annotations?)\b", _start(file))
    if root is None:
        return None
    if root[1] == "annotations":
        return "CVAT's xml", EXPORT
    return "the xml of one picture alone", "give the folder that it is in"


def _start(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return stream.read(4000)
    except OSError:
        return ""
