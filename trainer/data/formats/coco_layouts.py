"""COCO's jsons and their pictures, in the folder layouts that tools write."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...config import InputError
from .coco import picture_names
from .file_names import visible
from .folders import is_file, is_folder, leads_out

ALIASES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What tools call each split, in the order to look."""
ANNOTATIONS = "annotations"
INSTANCES = "instances_"
"""The names of COCO's files of boxes, and of CVAT's, begin with it."""
OTHER_TASKS = {"keypoints", "captions", "stuff", "panoptic", "info"}
"""Words in the names of COCO's other files."""
SAMPLE = 1000
"""Number of names in a json that are looked for to tell the folder that they are in."""
FEW = 20
"""Most files that are opened to see which of them is the data set."""

Fields = dict[str, Any]
"""Fields of `Data`."""


def plain(place: Path) -> Fields:
    """train.json, val.json, test.json."""
    names = {alias for aliases in ALIASES.values() for alias in aliases}
    return _splits_by_name(file for file in _jsons(place) if file.stem.lower() in names)


def instances(place: Path) -> Fields:
    """annotations/instances_train2017.json (COCO), instances_Train.json (CVAT)."""
    files = _jsons(place / ANNOTATIONS)
    return _splits_by_name(file for file in files if file.stem.lower().startswith(INSTANCES))


def named_after_splits(place: Path) -> Fields:
    """annotations/train.json (mmdetection), or other names in which train is a word."""
    for folder in (place / ANNOTATIONS, place):
        files = [file for file in _jsons(folder) if _split_of(file)]
        if len(files) > FEW:  # perhaps one for each picture
            continue
        fields = _splits_by_name(file for file in files if picture_names(file) is not None)
        if "train" in fields:
            return fields
    return {}


def folders_of_splits(place: Path) -> Fields:
    """train/labels.json (FiftyOne), train/annotation_coco.json (mmdetection)."""
    folders = _folders(place)
    fields: Fields = {}
    for split, aliases in ALIASES.items():
        folder = next((folders[alias] for alias in aliases if alias in folders), None)
        if folder and (file := _only_coco_json(folder, split)):
            fields[split] = file
    return _with_pictures(fields)


def one_json(place: Path) -> Fields:
    """The only COCO json of a folder, whatever its name.

    labels.json (FiftyOne), result.json (Label Studio), annotations/instances_default.json (CVAT).
    """
    file = _only_coco_json(place, "train")
    return _with_pictures({"train": file}) if file else {}


def _splits_by_name(files: Iterable[Path]) -> Fields:
    """The json of each split, by its name; of several names of a split the plainest counts."""
    ranked: dict[str, dict[int, list[Path]]] = {split: defaultdict(list) for split in ALIASES}
    for file in files:
        if split := _split_of(file):
            rest, names = file.stem.lower().removeprefix(INSTANCES), ALIASES[split]
            ranked[split][names.index(rest) if rest in names else len(names)].append(file)
    return _with_pictures({s: _only(ranks[min(ranks)], s) for s, ranks in ranked.items() if ranks})


def _split_of(file: Path) -> str | None:
    """The split that a json's name has as a word; None for none, several or another task."""
    words = _words(file)
    splits = [split for split, aliases in ALIASES.items() if words.intersection(aliases)]
    return splits[0] if len(splits) == 1 and not words & OTHER_TASKS else None


def _words(file: Path) -> set[str]:
    return set(re.findall("[a-z]+", file.stem.lower()))


def _only_coco_json(place: Path, split: str) -> Path | None:
    """The one COCO json in a folder, or in its annotations/, that is of no other split."""
    for folder in (place, place / ANNOTATIONS):
        files = [file for file in _jsons(folder) if not OTHER_TASKS & _words(file)]
        if len(files) > FEW:
            continue
        files = [file for file in files if _split_of(file) in {None, split}]
        if files := [file for file in files if picture_names(file) is not None]:
            return _only(files, split)
    return None


def _only(files: list[Path], split: str) -> Path:
    """The only file. Raises InputError if there are several."""
    if len(files) > 1:
        listed = " or ".join(file.name for file in files)
        step = "give that json itself, or a YAML with a data: part"
        raise InputError([f"{files[0].parent}: which is {split}, {listed}? {step}"])
    return files[0]


def _is_annotations(folder: Path) -> bool:
    return _as_written(folder).name == ANNOTATIONS


def _as_written(folder: Path) -> Path:
    """An absolute path without dots; links are not followed, as `Path.resolve` would."""
    return Path(os.path.abspath(folder))  # noqa: PTH100


def _jsons(folder: Path) -> list[Path]:
    return visible(folder.glob("*.[jJ][sS][oO][nN]"), folder)


def _folders(place: Path) -> dict[str, Path]:
    """The folders in a folder, by name in lower case."""
    if not place.is_dir():
        return {}
    with os.scandir(place) as entries:  # there may be a million pictures beside them
        inside = [place / entry.name for entry in entries if _is_folder(entry)]
    return {folder.name.lower(): folder for folder in visible(inside, place)}


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder or a link to one; only a link, which may be broken, is looked up."""
    return is_folder(entry.path) if entry.is_symlink() else entry.is_dir()


def _with_pictures(fields: Fields) -> Fields:
    """Add the folders of the pictures, if those are not beside each json."""
    folders = {split: place for split, file in fields.items() if (place := picture_folder(file))}
    same = len(folders) == len(fields) and len(set(folders.values())) == 1
    images = next(iter(folders.values())) if same else folders
    return fields | ({"images": images} if folders else {})


def picture_folder(file: Path) -> Path | None:
    """The folder where most of the pictures of a COCO json are; None if it is the json's folder."""
    names = [name for name in picture_names(file) or () if not leads_out(name)]
    names = names[:: len(names) // SAMPLE + 1]
    folders = [folder for folder in _picture_folders(file) if folder.is_dir()]
    best = max(folders, key=lambda f: sum(is_file(f / name) for name in names))
    return None if best == file.parent else best


def _picture_folders(file: Path) -> Iterator[Path]:
    """Where tools put the pictures of a json, the likeliest first."""
    beside = file.parent
    root = _as_written(beside).parent if _is_annotations(beside) else beside
    stem, split = file.stem.lower(), _split_of(file)
    names = [stem.removeprefix(INSTANCES)] if split or stem.startswith(INSTANCES) else []
    names += ALIASES[split] if split else ()
    for base in (root / "images", root):
        folders = _folders(base)
        yield from (folders[name] for name in names if name in folders)
    yield from (root / "images", root / "data", root, beside / "images", beside)
