"""YOLO's data.yaml, or the classes.txt that stands for one: its classes and its splits."""

import os
from pathlib import Path
from typing import Any

from ...config import InputError
from ...text.yaml import YamlError, load_yaml
from ..findings import Findings, Place
from .folders import is_below, is_folder
from .records import Records

CLASS_LIST = "classes.txt"
"""Stands for a missing data.yaml: one class per line, beside images/ and labels/."""
KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""The keys of a data.yaml that name each split."""


def read_yolo_yaml(file: Path) -> dict[str, Any]:
    """The keys of a data.yaml, or those that a classes.txt stands for. Raises InputError.

    Nothing in the file is ever run or downloaded.
    """
    if file.name == CLASS_LIST:
        return _from_class_list(file)
    try:
        content = load_yaml(file.read_text(encoding="utf-8-sig"), key_of_texts="names")
    except YamlError as error:
        line = f" (line {error.line})" if error.line else ""
        raise InputError([f"{error.kind}{line}"]) from None
    except UnicodeDecodeError:
        raise InputError(["is not UTF-8 text"]) from None
    except OSError as error:
        raise InputError([str(error.strerror)]) from None
    if not isinstance(content, dict) or "names" not in content:
        raise InputError(["is no data.yaml of YOLO's: it has no names"])
    return content


def _from_class_list(file: Path) -> dict[str, Any]:
    """The keys of a data.yaml for a list of classes.

    It lies beside images/ and labels/ (Label Studio), among the label files, or beside all files
    (labelImg). images/ may have a folder per split.
    """
    if file.is_symlink():  # its lines are shown as names, and could be of anyone's file
        raise InputError(["is a link; put the file itself there"])
    try:
        names = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError:
        raise InputError(["is not UTF-8 text"]) from None
    except OSError as error:
        raise InputError([f"cannot be read ({error.strerror})"]) from None
    beside = file.absolute().parent
    root = beside.parent if beside.name == "labels" else beside
    images = "images" if (root / "labels").is_dir() else "."
    places = {
        keys[0]: f"{images}/{key}"
        for keys in KEYS.values()
        for key in reversed(keys)
        if (root / images / key).is_dir()
    }
    return {"path": str(root), "names": names, **(places or {"train": images})}


def splits_of(file: Path) -> dict[str, Path]:
    """The splits that a data.yaml names, each with that file. Raises InputError."""
    content = read_yolo_yaml(file)
    return {split: file for split, keys in KEYS.items() if any(content.get(k) for k in keys)}


def class_names(content: dict[str, Any]) -> dict[int, str]:
    """The classes by number. Raises InputError.

    `names` is a list, a mapping of numbers to names, or a list of such mappings.
    """
    names = content["names"]
    if isinstance(names, dict):
        pairs = list(names.items())
    elif isinstance(names, list) and names and all(isinstance(each, dict) for each in names):
        pairs = [pair for each in names for pair in each.items()]
    elif isinstance(names, list):
        pairs = list(enumerate(names))
    else:
        pairs = [("", "")]
    if not all(str(i).isdecimal() and len(str(i)) < 10 for i, _ in pairs):
        raise InputError(["names is neither a list nor names by number"])
    by_number = {int(number): _text(name, f"names: {number}") for number, name in pairs}
    if len(by_number) < len(pairs):
        raise InputError(["names has a number twice"])
    count = content.get("nc", len(by_number))
    if count != len(by_number) and count is not None:
        count_text = count if type(count) is int else "no integer"
        raise InputError([f"nc is {count_text}, but names has {len(by_number)}"])
    return by_number


def _text(value: Any, field: str) -> str:
    """A name or a path, which YAML may take for a number. Raises InputError."""
    text = "\0" if value is None or isinstance(value, list | dict | set | bytes) else str(value)
    if "\0" in text:
        raise InputError([f"{field} is no text; write it in quotes"])
    return text


def root_folder(records: Records, content: dict[str, Any], findings: Findings) -> Path:
    """The folder to which all paths are relative: `path` of the data.yaml, else its folder."""
    beside = records.source.absolute().parent
    path = content.get("path")
    if not path:
        return beside
    root = beside / _text(path, "path")
    if is_folder(root):
        return root
    findings.add("path-gone", records.name, records.source, [Place(str(root))])
    return beside


def picture_places(
    records: Records, content: dict[str, Any], root: Path, findings: Findings
) -> list[Path]:
    """The folders and lists of pictures of a split. Raises InputError."""
    key = next((key for key in KEYS[records.name] if content.get(key)), None)
    if key is None:
        raise InputError([f"has no {records.name}"])
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    places = []
    ambiguous = []
    for entry in entries:
        text = _text(entry, key)
        # Roboflow writes ../train/images for train/images
        place, within = root / text, root / text.removeprefix("../")
        if not _exists(place) and _exists(within):
            place = within
        elif _exists(within) and not place.samefile(within):
            ambiguous.append(Place(str(place), detail=f"or {within}, as Roboflow means it"))
        places.append(place)
    findings.add("place-ambiguous", records.name, records.source, ambiguous)
    outside = (Place(str(place)) for place in places if not _is_beside(place, records.source))
    findings.add("yaml-leads-out", records.name, records.source, outside)
    return places


def _exists(place: Path) -> bool:
    return os.path.exists(place)  # noqa: PTH110 - Path.exists raises for a name that is too long


def _is_beside(place: Path, file: Path) -> bool:
    """Whether it lies below the file's folder, as written or with links followed."""
    folder = file.absolute().parent
    real = Path(os.path.realpath(place))
    return is_below(place, folder) or is_below(real, Path(os.path.realpath(folder)))
