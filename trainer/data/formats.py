"""A data set by its place: which format it is, and how it becomes splits to train on."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import BadInput, Data, Model
from .dataset import Split, Splits
from .digits import make_digits
from .examine import SPLIT_NAMES, examine
from .split import split_off, take_off
from .yolo import read_yolo_yaml, splits_of

ROBOFLOW = "_annotations.coco.json"
ALIASES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
UNREAD = {
    "_annotations.csv": "a CSV of boxes",
    "_annotations.createml.json": "CreateML",
    "_darknet.labels": "Darknet without a data.yaml",
    "*.tfrecord": "TFRecord",
}
"""Roboflow's other exports."""
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
    if folder is None or not (folder / MADE).is_file():
        return set()
    return set(json.loads((folder / MADE).read_text())["val"])


# -- what lies where ------------------------------------------------------------------------------


def find(place: Path) -> Data:
    """Guess the `data:` part from an annotation file or a folder. Raises BadInput saying what was
    looked for."""
    if place.is_file():
        return _of_file(place)
    for look in (_coco, _roboflow, _coco_by_year, _yolo, _voc_sets, _voc_folders):
        found = look(place)
        if "train" in found:
            return Data(**found)
    for pattern, named in UNREAD.items():
        if file := next(place.glob(f"**/{pattern}"), None):
            raise BadInput([f"{file}: {named} is not read; export it as COCO, YOLO or Pascal VOC"])
    raise BadInput(
        [
            f"{place}: found no data set here; looked for train.json, train/{ROBOFLOW}, "
            "annotations/instances_train*.json (COCO, Roboflow), a .yaml with names (YOLO), "
            "ImageSets/Main/train.txt or .xml files (Pascal VOC)"
        ]
    )


def _of_file(file: Path) -> Data:
    if file.suffix.lower() in {".yaml", ".yml"}:
        try:
            found: Found = dict(splits_of(file))
        except BadInput as error:
            raise BadInput([f"{file}: {line}" for line in error.errors]) from None
        if "train" not in found:
            raise BadInput([f"{file}: names no train"])
        return Data(**found)
    return Data(train=file)


Found = dict[str, Any]
"""Fields of `Data`."""


def _coco(place: Path) -> Found:
    """train.json, val.json, test.json."""
    found = _first(place, lambda alias: f"{alias}.json")
    return found | (_images(place / "images") if found else {})


def _roboflow(place: Path) -> Found:
    """A folder a split, each with its json; or one folder alone."""
    found = _first(place, lambda alias: f"{alias}/{ROBOFLOW}")
    if not found and (place / ROBOFLOW).is_file():
        found = {"train": place / ROBOFLOW}
    return found


def _coco_by_year(place: Path) -> Found:
    """As COCO itself: annotations/instances_train2017.json, and its pictures in train2017/."""
    found: Found = {}
    images = {}
    for split in SPLIT_NAMES:
        for file in sorted((place / "annotations").glob(f"instances_{split}*.json"))[:1]:
            found[split] = file
            own = place / file.stem.removeprefix("instances_")
            images[split] = next((d for d in (own, place / "images") if d.is_dir()), place)
    return found | ({"images": images} if found else {})


def _yolo(place: Path) -> Found:
    """data.yaml, or whatever one names the classes and a train."""
    for file in sorted(place.glob("*.y*ml"), key=lambda file: (file.stem != "data", file.name)):
        try:
            read_yolo_yaml(file)
            return dict(splits_of(file))
        except BadInput as error:
            if file.stem == "data":  # meant as one, so its fault is the answer
                raise BadInput([f"{file}: {line}" for line in error.errors]) from None
    return {}


def _voc_sets(place: Path) -> Found:
    """ImageSets/Main/train.txt, with Annotations/ and JPEGImages/; also below VOCdevkit/."""
    for root in (place, *sorted(place.glob("VOC*")), *sorted(place.glob("VOCdevkit/VOC*"))):
        sets = root / "ImageSets" / "Main"
        found = _first(sets, lambda alias: f"{alias}.txt")
        if not found and (sets / "trainval.txt").is_file():
            found["train"] = sets / "trainval.txt"
        if found and (root / "Annotations").is_dir():
            beside = (root / "JPEGImages", root / "images", root.parent / "images")
            return found | next((_images(folder) for folder in beside if folder.is_dir()), {})
    return {}


def _voc_folders(place: Path) -> Found:
    """Folders of xml files: one a split, as Roboflow exports, or one in all."""
    found = {
        split: folder
        for split, aliases in ALIASES.items()
        for alias in aliases
        if any((folder := place / alias).glob("*.xml"))
    }
    for folder in (place, place / "Annotations"):
        if not found and any(folder.glob("*.xml")):
            found["train"] = folder
    return found


def _first(place: Path, name: Callable[[str], str]) -> Found:
    """Of each split the first file that is there under one of its names."""
    return {
        split: files[0]
        for split, aliases in ALIASES.items()
        if (files := [file for alias in aliases if (file := place / name(alias)).is_file()])
    }


def _images(folder: Path) -> Found:
    return {"images": folder} if folder.is_dir() else {}
