"""A data set by its place: which format it is, and how it becomes splits to train on."""

from collections.abc import Callable
from pathlib import Path

from ...config import BadInput, Data
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
from .yolo import CLASS_LIST, read_yolo_yaml, splits_of

ROBOFLOW = "_annotations.coco.json"


# -- what lies where ------------------------------------------------------------------------------


def find(place: Path) -> Data:
    """Guess the `data:` part from an annotation file or a folder. Raises BadInput saying what was
    looked for, or what is there instead."""
    if place.is_file():
        return _of_file(place)
    for look in LAYOUTS:
        found = look(place)
        if "train" in found:
            return Data(**found)
    if named := foreign_in(place):
        raise BadInput([named])
    raise BadInput(
        [
            f"{place}: found no data set here; looked for train.json, train/{ROBOFLOW}, "
            "annotations/instances_train*.json, labels.json, result.json (COCO, Roboflow, CVAT, "
            "FiftyOne, Label Studio), a .yaml with names or classes.txt (YOLO), "
            "ImageSets/Main/train.txt or .xml files (Pascal VOC)"
        ]
    )


def _of_file(file: Path) -> Data:
    if file.suffix.lower() in {".yaml", ".yml"} or file.name == CLASS_LIST:
        found = _yolo_of(file)
        if "train" not in found:
            raise BadInput([f"{file}: names no train"])
        return Data(**found)
    if named := foreign(file):
        raise BadInput([f"{file}: {named}"])
    folder = picture_folder(file) if file.suffix.lower() == ".json" else None
    # beside a json and in images/ pictures are looked for anyway, in both
    return Data(train=file, images=None if folder == file.parent / "images" else folder)


def _roboflow(place: Path) -> Fields:
    """A folder a split, each with its json; or one folder alone."""
    found = _first(place, lambda alias: f"{alias}/{ROBOFLOW}")
    if not found and (place / ROBOFLOW).is_file():
        found = {"train": place / ROBOFLOW}
    return found


def _yolo(place: Path) -> Fields:
    """data.yaml, or whatever one names the classes and a train."""
    files = visible(place.glob("*.y*ml"), place)
    for file in sorted(files, key=lambda file: (file.stem != "data", file.name)):
        try:
            read_yolo_yaml(file)
            return dict(splits_of(file))
        except BadInput as error:
            if file.stem == "data":  # meant as one, so its fault is the answer
                raise BadInput([f"{file}: {line}" for line in error.errors]) from None
    return {}


def _yolo_class_list(place: Path) -> Fields:
    """classes.txt beside labels/ as Label Studio, or among the label files as labelImg."""
    for file in (place / CLASS_LIST, place / "labels" / CLASS_LIST):
        has_labels = (place / "labels").is_dir() or len(visible(place.glob("*.txt"), place)) > 1
        if file.is_file() and has_labels:
            return _yolo_of(file)
    return {}


def _yolo_of(file: Path) -> Fields:
    try:
        return dict(splits_of(file))
    except BadInput as error:
        raise BadInput([f"{file}: {line}" for line in error.errors]) from None


def _voc_sets(place: Path) -> Fields:
    """ImageSets/Main/train.txt, with Annotations/ and JPEGImages/; also below VOCdevkit/."""
    for root in (place, *sorted(place.glob("VOC*")), *sorted(place.glob("VOCdevkit/VOC*"))):
        sets = root / "ImageSets" / "Main"
        found = _first(sets, lambda alias: f"{alias}.txt")
        if not found and (sets / "default.txt").is_file():  # CVAT's
            found["train"] = sets / "default.txt"
        if found and (root / "Annotations").is_dir():
            beside = (root / "JPEGImages", root / "images", root.parent / "images")
            return found | next((_images(folder) for folder in beside if folder.is_dir()), {})
    return {}


def _voc_folders(place: Path) -> Fields:
    """Folders of xml files: one a split, as Roboflow exports, or one in all."""
    found = _first(place, lambda alias: alias, _has_xml)
    for folder in (place, place / "Annotations", place / "labels"):
        if not found and _has_xml(folder):
            found["train"] = folder
            if folder.name == "labels":  # FiftyOne's
                found |= _images(place / "data")
    return found


def _has_xml(folder: Path) -> bool:
    return any(file.name != CVAT for file in visible(folder.glob("*.xml"), folder))


def _first(
    place: Path, name: Callable[[str], str], is_one: Callable[[Path], bool] = Path.is_file
) -> Fields:
    """Of each split the first that is there under one of its names."""
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
"""In the order to look: where a folder holds two, the plainer name counts."""
