"""Reads YOLO into records: the pictures of a data.yaml, and a text file of boxes for each.

A picture is the path that the data.yaml and its lists write, with links not followed. The label
file follows from that path, so no name is looked up a second time.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ...config import InputError
from ..findings import Findings, Place
from ..pixels import SUFFIXES
from .folders import as_spelt, files_below, is_file, is_folder
from .records import BoxRecord, CategoryRecord, ImageRecord, Records
from .yolo_labels import BOX, begins_with_class, is_of_another_task, read_rows
from .yolo_yaml import class_names, picture_places, read_yolo_yaml, root_folder


def read_yolo(records: Records, findings: Findings) -> bool:
    """Fill in the pictures and boxes of one split of a data.yaml; False if that has an error.

    Category ids are the classes of the label files, from 0. A polygon becomes the box around it.
    """
    try:
        content = read_yolo_yaml(records.source)
        names = class_names(content)
        if "kpt_shape" in content:
            raise InputError(
                ["has kpt_shape: rows with keypoints are not read; export boxes alone"]
            )
        root = root_folder(records, content, findings)
        places = picture_places(records, content, root, findings)
    except InputError as error:
        wrong = [Place(records.source.name, detail=line) for line in error.errors]
        findings.add("file-unreadable", records.name, records.source, wrong)
        return False
    missing = [_missing(p) for p in places if not (is_folder(p) or is_file(p))]
    findings.add("file-missing", records.name, records.source, missing)
    if missing:
        return False
    records.relative = True
    records.categories = [CategoryRecord(i, name) for i, name in sorted(names.items())]
    records.folders = [root, *(place if place.is_dir() else place.parent for place in places)]
    try:
        _read_pictures(records, places, findings)
    except OSError as error:  # of a list or a folder
        wrong = [Place(str(error.filename), detail=str(error.strerror))]
        findings.add("file-unreadable", records.name, records.source, wrong)
        return False
    return True


def _missing(place: Path) -> Place:
    """A folder or list that does not exist, with the path that is meant if it has backslashes."""
    slashed = str(place).replace("\\", "/")
    exists = slashed != str(place) and (is_folder(slashed) or is_file(slashed))
    return Place(str(place), detail=f"there is {slashed}: write / for \\" if exists else "")


def _read_pictures(records: Records, places: list[Path], findings: Findings) -> None:
    root = f"{os.path.normpath(records.folders[0])}/"
    labels: dict[Path, Path] = {}
    repeated = []
    longer: list[tuple[int, bool]] = []
    for picture, name in _pictures(places, root):
        image = ImageRecord(id=len(records.images) + 1, file_name=name)
        records.images.append(image)
        records.files.append(picture)
        label = _label_file(picture)
        if not is_file(label):
            records.unlabelled.append(name)
            records.label_hint = records.label_hint or _label_hint(picture, root)
            continue
        if labels.setdefault(label, picture) != picture:
            detail = f"has {_shown(label, root)}, as {_shown(labels[label], root)} has"
            repeated.append(Place(name, image.id, detail=detail))
        longer += _read_rows(records, label, image.id)
    findings.add("label-twice", records.name, records.source, repeated)
    _check_task(records, longer, findings)
    if all(place.is_dir() for place in places):  # a list may leave pictures out
        unread = (Place(_shown(file, root)) for file in _unread_labels(places, set(labels)))
        findings.add("label-without-picture", records.name, records.source, unread)


def _read_rows(records: Records, label: Path, image: int) -> Iterator[tuple[int, bool]]:
    """Add the boxes of a label file.

    Yields:
        For each row longer than a box its position in `Records.boxes`, and whether it is of
        another task.
    """
    for row in read_rows(label):
        if row.numbers and len(row.numbers) > BOX:
            yield len(records.boxes), is_of_another_task(row.numbers)
        box_id = f"{label.name} line {row.line}"
        box = BoxRecord(id=box_id, image_id=image, category_id=row.label, bbox=row.box)
        records.boxes.append(box)


def _check_task(records: Records, longer: list[tuple[int, bool]], findings: Findings) -> None:
    """Report rows of other tasks, if they are most of the rows longer than a box."""
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
                # the list could be a link to anyone's file: do not quote what names no picture
                is_picture = file.suffix.lower() in SUFFIXES
                alias = f"{_shown(place, root)} line {number}"
                yield file, _shown(file, root) if is_picture else alias


def _shown(file: Path, root: str) -> str:
    """A path in messages: relative to the root if it lies there."""
    return os.path.normpath(file).removeprefix(root)


def _label_file(picture: Path) -> Path:
    """`.../images/a.jpg` has its boxes in `.../labels/a.txt`, else in `a.txt` beside it."""
    name = f"{picture.stem}.txt"
    label = as_spelt(_label_folder(picture.parent) / name)
    return label if is_file(label) else as_spelt(picture.parent / name)


def _label_hint(picture: Path, root: str) -> str:
    """What to do if the label file of a picture ends with .TXT; else empty."""
    for folder in (_label_folder(picture.parent), picture.parent):
        label = folder / f"{picture.stem}.TXT"
        if is_file(label):
            return f"there is {_shown(label, root)}: rename label files so that they end with .txt"
    return ""


def _label_folder(folder: Path) -> Path:
    """The path with its last part `images` replaced by `labels`, if it has one."""
    parts = list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _unread_labels(places: list[Path], read: set[Path]) -> Iterator[Path]:
    """Label files for pictures that could lie in these folders, without those that were read."""
    for folder in sorted({*places, *(_label_folder(place) for place in places)}):
        for file in sorted(files_below(folder)):
            if file.suffix == ".txt" and file not in read and begins_with_class(file):
                yield file
