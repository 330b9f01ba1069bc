"""A data set by its place: which format it is, and how it becomes splits to train on."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..config import BadInput, Data, Model
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
from .dataset import Split, Splits
from .digits import make_digits
from .examine import examine
from .foreign import CVAT, foreign, foreign_in
from .names import visible
from .split import split_off, take_off
from .yolo import CLASS_LIST, read_yolo_yaml, splits_of

ROBOFLOW = "_annotations.coco.json"
MADE = "splits.json"
"""In a search's folder: which pictures of train became val."""


def load(
    data: Data | str,
    cache: Path,
    folder: Path | None = None,
    step: Callable[[int, int], None] = lambda done, of: None,
    model: Model | None = None,
) -> Splits:
    """Read a data set: the `data:` part of a config, or `digits` for the embedded one.

    Where no val is given, the split that a search's `folder` keeps is taken, else one is made.
    Raises BadInput with every error of every file; `step` and `model` are as for
    `examine`.
    """
    data = given(data, cache)
    examined = examine(data, cache, step=step, model=model)
    if examined.errors:
        raise BadInput([finding.line for finding in examined.errors])
    splits, notes = examined.splits, list(examined.notes)
    made = "val" not in splits
    if made:
        before = _read_made(folder)
        halves = take_off(splits["train"], "val", before) if before else None
        halves = halves or split_off(splits["train"], "val", data.val_fraction)
        splits = {**splits, "train": halves[0], "val": halves[1]}
        notes.append(
            f"no val given: {len(halves[1].pictures)} of the pictures of train are val, "
            "chosen by content, in equal shares of each class"
        )
        notes += _one_sided(halves)
    return Splits(splits["train"], splits["val"], splits.get("test"), tuple(notes), made)


def _one_sided(halves: tuple[Split, Split]) -> Iterator[str]:
    """Classes that a made val or what is left of train lacks, a line a side."""
    held = [{int(label) for p in half.pictures for label in p.labels[~p.crowd]} for half in halves]
    for half, own in zip(halves, held, strict=True):
        missing = [half.categories[label - 1].name for label in sorted(set.union(*held) - own)]
        if missing:
            yield f"{half.name} has no box of {', '.join(missing)}: too few pictures have one"


def load_split(data: Data, name: str, cache: Path) -> Split:
    """All that `data.train` lists, as the split of this name. Raises BadInput."""
    examined = examine(data.model_copy(update={"val": None, "test": None}), cache)
    if examined.errors:
        raise BadInput([replace(finding, split=name).line for finding in examined.errors])
    return replace(examined.splits["train"], name=name)


def given(data: Data | str, cache: Path) -> Data:
    """The `data:` part itself, `digits` being made where they are not yet."""
    return data if isinstance(data, Data) else find(make_digits(cache))


def made_split(data: Splits) -> bytes:
    """What a search keeps of a val that was made, to be read by `load` again."""
    chosen = {picture.sha256: picture.file.name for picture in data.val.pictures}
    return json.dumps({"val": chosen}, indent=1).encode()


def _read_made(folder: Path | None) -> set[str]:
    """Digests of the pictures that are val, none where none are kept. Raises BadInput."""
    if folder is None or not (folder / MADE).is_file():
        return set()
    try:
        kept = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise BadInput([_damaged(folder, "it is no JSON")]) from None
    chosen = kept.get("val") if isinstance(kept, dict) else None
    if not isinstance(chosen, dict) or not chosen:
        raise BadInput([_damaged(folder, "it has no val of pictures by SHA-256")])
    return set(chosen)


def _damaged(folder: Path, why: str) -> str:
    return (
        f"{folder / MADE} is damaged ({why}): move it away, and the same pictures are chosen "
        "again, if the data is the same"
    )


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
