"""Finds the `data:` part of a config from an annotation file or a folder."""

from collections.abc import Callable
from pathlib import Path

from ...config import Data, InputError
from .coco_layouts import (
    ALIASES,
    Fields,
    folders_of_splits,
    instances,
    named_after_splits,
    one_json,
    picture_folder,
    plain,
)
from .file_names import visible
from .unsupported import CVAT, foreign, foreign_in
from .yolo_yaml import CLASS_LIST, read_yolo_yaml, splits_of

ROBOFLOW = "_annotations.coco.json"


LOOKED_FOR = (
    f"train.json, train/{ROBOFLOW}, annotations/instances_train*.json, labels.json, result.json "
    "(COCO, Roboflow, CVAT, FiftyOne, Label Studio), a .yaml with names or classes.txt (YOLO), "
    "ImageSets/Main/train.txt or .xml files (Pascal VOC)"
)
"""What a folder is searched for, as a user reads it."""


def find_layout(place: Path) -> Data:
    """Guess the `data:` part from an annotation file or a folder.

    Raises:
        InputError: Says what was looked for, or which unsupported format was met.
    """
    if place.is_file():
        return _of_file(place)
    for look in LAYOUTS:
        fields = look(place)
        if "train" in fields:
            return Data(**fields)
    if unsupported := foreign_in(place):
        raise InputError([unsupported])
    raise InputError([f"{place}: no data set here; looked for {LOOKED_FOR}"])


def _of_file(file: Path) -> Data:
    if file.suffix.lower() in {".yaml", ".yml"} or file.name == CLASS_LIST:
        fields = _yolo_splits(file)
        if "train" not in fields:
            raise InputError([f"{file}: names no train"])
        return Data(**fields)
    if unsupported := foreign(file):
        raise InputError([f"{file}: {unsupported}"])
    folder = picture_folder(file) if file.suffix.lower() == ".json" else None
    # pictures are looked for beside a json and in images/ anyway
    return Data(train=file, images=None if folder == file.parent / "images" else folder)


def _roboflow(place: Path) -> Fields:
    """A folder per split, each with its json; or one folder alone."""
    fields = _first(place, lambda alias: f"{alias}/{ROBOFLOW}")
    if not fields and (place / ROBOFLOW).is_file():
        fields = {"train": place / ROBOFLOW}
    return fields


def _yolo(place: Path) -> Fields:
    """data.yaml, or another YAML with names and a train."""
    files = visible(place.glob("*.y*ml"), place)
    for file in sorted(files, key=lambda file: (file.stem != "data", file.name)):
        try:
            read_yolo_yaml(file)
            return dict(splits_of(file))
        except InputError as error:
            if file.stem == "data":  # it is meant as one, so its error is the answer
                raise InputError([f"{file}: {line}" for line in error.errors]) from None
    return {}


def _yolo_class_list(place: Path) -> Fields:
    """classes.txt beside labels/ (Label Studio), or among the label files (labelImg)."""
    for file in (place / CLASS_LIST, place / "labels" / CLASS_LIST):
        has_labels = (place / "labels").is_dir() or len(visible(place.glob("*.txt"), place)) > 1
        if file.is_file() and has_labels:
            return _yolo_splits(file)
    return {}


def _yolo_splits(file: Path) -> Fields:
    try:
        return dict(splits_of(file))
    except InputError as error:
        raise InputError([f"{file}: {line}" for line in error.errors]) from None


def _voc_sets(place: Path) -> Fields:
    """ImageSets/Main/train.txt, with Annotations/ and JPEGImages/; also below VOCdevkit/."""
    for root in (place, *sorted(place.glob("VOC*")), *sorted(place.glob("VOCdevkit/VOC*"))):
        sets = root / "ImageSets" / "Main"
        fields = _first(sets, lambda alias: f"{alias}.txt")
        if not fields and (sets / "default.txt").is_file():  # CVAT's
            fields["train"] = sets / "default.txt"
        if fields and (root / "Annotations").is_dir():
            beside = (root / "JPEGImages", root / "images", root.parent / "images")
            return fields | next((_images(folder) for folder in beside if folder.is_dir()), {})
    return {}


def _voc_folders(place: Path) -> Fields:
    """Folders of xml files: one per split (Roboflow), or one in all."""
    fields = _first(place, lambda alias: alias, _has_xml)
    for folder in (place, place / "Annotations", place / "labels"):
        if not fields and _has_xml(folder):
            fields["train"] = folder
            if folder.name == "labels":  # FiftyOne's
                fields |= _images(place / "data")
    return fields


def _has_xml(folder: Path) -> bool:
    return any(file.name != CVAT for file in visible(folder.glob("*.xml"), folder))


def _first(
    place: Path, name: Callable[[str], str], is_one: Callable[[Path], bool] = Path.is_file
) -> Fields:
    """For each split the first place that exists under one of the split's names."""
    return {
        split: places[0]
        for split, aliases in ALIASES.items()
        if (places := [one for alias in aliases if is_one(one := place / name(alias))])
    }


def _images(folder: Path) -> Fields:
    return {"images": folder} if folder.is_dir() else {}


LAYOUTS = (
    plain,
    _roboflow,
    instances,
    _yolo,
    _voc_sets,
    _voc_folders,
    named_after_splits,
    folders_of_splits,
    one_json,
    _yolo_class_list,
)
"""In the order to look: if a folder holds two, the plainer name counts."""
