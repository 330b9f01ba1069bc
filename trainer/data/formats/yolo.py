"""YOLO: a data.yaml with folders or lists of pictures, and a text file of boxes for each.

A picture is its own path as the data.yaml and its lists write it, links not followed, and its label
file follows from that path: no name is looked up a second time.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...config import BadInput
from ...text.yaml import NoYaml, load_yaml
from ..findings import Findings, Place
from ..pixels import SUFFIXES
from .folders import as_spelt, files_below, is_below
from .records import BoxRecord, CategoryRecord, ImageRecord, Records
from .yolo_labels import BOX, begins_with_class, is_of_another_task, read_rows

CLASS_LIST = "classes.txt"
"""Stands for a data.yaml where there is none: a class a line, beside images/ and labels/."""
KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""The keys of a data.yaml that name each split."""


def read_yolo(records: Records, findings: Findings) -> bool:
    """Fill in the pictures and boxes of one split of a data.yaml; False where that is wrong.

    Category ids are the classes of the label files, from 0. A polygon becomes the box around it.
    """
    try:
        content = read_yolo_yaml(records.source)
        names = _names(content)
        if "kpt_shape" in content:
            raise BadInput(["has kpt_shape: rows with keypoints are not read; export boxes alone"])
        root = _root(records, content, findings)
        places = _places(records, content, root, findings)
    except BadInput as error:
        wrong = [Place(records.source.name, detail=line) for line in error.errors]
        findings.add("file-unreadable", records.name, records.source, wrong)
        return False
    gone = [Place(str(p)) for p in places if not (os.path.isdir(p) or os.path.isfile(p))]
    findings.add("file-missing", records.name, records.source, gone)
    if gone:
        return False
    records.relative = True
    records.categories = [CategoryRecord(i, name) for i, name in sorted(names.items())]
    records.folders = [root, *(place if place.is_dir() else place.parent for place in places)]
    try:
        _read_pictures(records, places, findings)
    except OSError as error:  # a list, or a folder
        wrong = [Place(str(error.filename), detail=str(error.strerror))]
        findings.add("file-unreadable", records.name, records.source, wrong)
        return False
    return True


def read_yolo_yaml(file: Path) -> dict[str, Any]:
    """The keys of a data.yaml, or of what a classes.txt stands for; nothing in it is ever run or
    downloaded. Raises BadInput."""
    if file.name == CLASS_LIST:
        return _of_class_list(file)
    try:
        content = load_yaml(file.read_text(encoding="utf-8-sig"))
    except NoYaml as error:
        line = f" (line {error.line})" if error.line else ""
        raise BadInput([f"{error.kind}{line}"]) from None
    except UnicodeDecodeError:
        raise BadInput(["is not UTF-8 text"]) from None
    except OSError as error:
        raise BadInput([str(error.strerror)]) from None
    if not isinstance(content, dict) or "names" not in content:
        raise BadInput(["is no data.yaml of YOLO's: it has no names"])
    return content


def _of_class_list(file: Path) -> dict[str, Any]:
    """Beside images/ and labels/ (Label Studio), among the label files, or beside all (labelImg);
    images/ may have a folder a split."""
    if file.is_symlink():  # its lines are shown as names: they may be anyone's
        raise BadInput(["is a link; put the file itself there"])
    try:
        names = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError:
        raise BadInput(["is not UTF-8 text"]) from None
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
    """The splits that a data.yaml names, each with that file itself. Raises BadInput."""
    content = read_yolo_yaml(file)
    return {split: file for split, keys in KEYS.items() if any(content.get(k) for k in keys)}


# -- the data.yaml --------------------------------------------------------------------------------


def _names(content: dict[str, Any]) -> dict[int, str]:
    """The classes by number: of a list, of numbers with names, or of a list of such."""
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
        raise BadInput(["names is neither a list nor names by number"])
    found = {int(number): _text(name, f"names: {number}") for number, name in pairs}
    if len(found) < len(pairs):
        raise BadInput(["names has a number twice"])
    count = content.get("nc", len(found))
    if count != len(found) and count is not None:
        said = count if type(count) is int else "no whole number"
        raise BadInput([f"nc is {said}, but names has {len(found)}"])
    return found


def _text(value: Any, field: str) -> str:
    """A name or a path, which YAML may take for a number. Raises BadInput."""
    text = "\0" if value is None or isinstance(value, list | dict | set | bytes) else str(value)
    if "\0" in text:
        raise BadInput([f"{field} is no text; write it in quotes"])
    return text


def _root(records: Records, content: dict[str, Any], findings: Findings) -> Path:
    """The folder that all is relative to: the data.yaml's `path`, else its own folder."""
    beside = records.source.absolute().parent
    path = content.get("path")
    if not path:
        return beside
    root = beside / _text(path, "path")
    if os.path.isdir(root):
        return root
    findings.add("path-gone", records.name, records.source, [Place(str(root))])
    return beside


def _places(
    records: Records, content: dict[str, Any], root: Path, findings: Findings
) -> list[Path]:
    """Folders and lists of pictures of a split."""
    key = next((key for key in KEYS[records.name] if content.get(key)), None)
    if key is None:
        raise BadInput([f"has no {records.name}"])
    entries = content[key] if isinstance(content[key], list) else [content[key]]
    places = []
    ambiguous = []
    for entry in entries:
        text = _text(entry, key)
        # Roboflow writes ../train/images for what lies in train/images
        place, within = root / text, root / text.removeprefix("../")
        if not os.path.exists(place) and os.path.exists(within):
            place = within
        elif os.path.exists(within) and not os.path.samefile(place, within):
            ambiguous.append(Place(str(place), detail=f"or {within}, as Roboflow means it"))
        places.append(place)
    findings.add("place-ambiguous", records.name, records.source, ambiguous)
    outside = (Place(str(place)) for place in places if not _is_beside(place, records.source))
    findings.add("yaml-leads-out", records.name, records.source, outside)
    return places


def _is_beside(place: Path, file: Path) -> bool:
    """Whether it lies below the file's folder, as written or by the folder's other names."""
    folder = file.absolute().parent
    real = Path(os.path.realpath(place))
    return is_below(place, folder) or is_below(real, Path(os.path.realpath(folder)))


# -- pictures and their label files ---------------------------------------------------------------


def _read_pictures(records: Records, places: list[Path], findings: Findings) -> None:
    root = f"{os.path.normpath(records.folders[0])}/"
    labels: dict[Path, Path] = {}
    again = []
    longer: list[tuple[int, bool]] = []
    for picture, name in _pictures(places, root):
        image = ImageRecord(id=len(records.images) + 1, file_name=name)
        records.images.append(image)
        records.files.append(picture)
        label = _label_file(picture)
        if not os.path.isfile(label):
            records.unlabelled.append(name)
            continue
        if labels.setdefault(label, picture) != picture:
            detail = f"has {_shown(label, root)}, as {_shown(labels[label], root)} has"
            again.append(Place(name, image.id, detail=detail))
        longer += _read_rows(records, label, image.id)
    findings.add("label-twice", records.name, records.source, again)
    _check_task(records, longer, findings)
    if all(place.is_dir() for place in places):  # a list may leave pictures out
        alone = (Place(_shown(file, root)) for file in _label_files(places, set(labels)))
        findings.add("label-without-picture", records.name, records.source, alone)


def _read_rows(records: Records, label: Path, image: int) -> Iterator[tuple[int, bool]]:
    """Add the boxes of a label file; of each row longer than a box its place in `Records.boxes`,
    and whether it is of another task."""
    for row in read_rows(label):
        if row.numbers and len(row.numbers) > BOX:
            yield len(records.boxes), is_of_another_task(row.numbers)
        identity = f"{label.name} line {row.line}"
        box = BoxRecord(id=identity, image_id=image, category_id=row.label, bbox=row.box)
        records.boxes.append(box)


def _check_task(records: Records, longer: list[tuple[int, bool]], findings: Findings) -> None:
    others = [i for i, is_other in longer if is_other]

    def place(i: int) -> Place:
        box = records.boxes[i]
        return Place(records.images[box.image_id - 1].file_name, box.image_id, box.id)

    if len(others) > len(longer) / 2:
        code = "rows-of-another-task"
        findings.add_at(code, records.name, records.source, others, place)


def _pictures(places: list[Path], root: str) -> Iterator[tuple[Path, str]]:
    """The path of each picture, and its name in messages."""
    for place in places:
        if place.is_dir():
            for file in sorted(f for f in files_below(place) if f.suffix.lower() in SUFFIXES):
                yield file, _shown(file, root)
            continue
        lines = place.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(map(str.strip, lines), start=1):
            if line:
                file = as_spelt(place.parent / line)
                # a line that names no picture may be of anyone's file: the list could be a link
                is_named = file.suffix.lower() in SUFFIXES
                alias = f"{_shown(place, root)} line {number}"
                yield file, _shown(file, root) if is_named else alias


def _shown(file: Path, root: str) -> str:
    """Relative to the root where it lies there, else whole."""
    return os.path.normpath(file).removeprefix(root)


def _label_file(picture: Path) -> Path:
    """`.../images/a.jpg` has its boxes in `.../labels/a.txt`, else in `a.txt` beside it."""
    name = f"{picture.stem}.txt"
    label = as_spelt(_label_folder(picture.parent) / name)
    return label if os.path.isfile(label) else as_spelt(picture.parent / name)


def _label_folder(folder: Path) -> Path:
    """`.../labels` of `.../images`, also below it; the folder itself where it has no such part."""
    parts = list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _label_files(places: list[Path], read: set[Path]) -> Iterator[Path]:
    """Of all pictures that these folders could hold: text files that begin with a class, but for
    those that were read."""
    for folder in sorted({*places, *(_label_folder(place) for place in places)}):
        for file in sorted(files_below(folder)):
            if file.suffix == ".txt" and file not in read and begins_with_class(file):
                yield file
