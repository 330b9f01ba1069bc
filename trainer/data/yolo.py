"""YOLO: a data.yaml with folders or lists of pictures, and a text file of boxes for each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import BadInput
from .findings import Findings, Place
from .pixels import SUFFIXES
from .records import BoxRecord, CategoryRecord, ImageRecord, Records

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
        places = _places(content, records.source, records.name)
    except BadInput as error:
        wrong = [Place(records.source.name, detail=line) for line in error.errors]
        findings.add("file-unreadable", records.name, records.source, wrong)
        return False
    gone = [Place(str(place)) for place in places if not place.exists()]
    findings.add("file-missing", records.name, records.source, gone)
    if gone:
        return False
    records.relative = True
    records.categories = [CategoryRecord(i, name) for i, name in sorted(names.items())]
    records.folders = [root_of(records.source), *(place for place in places if place.is_dir())]
    labels = set()
    for picture in _pictures(places):
        name = _name(picture, records.folders)
        image = ImageRecord(id=len(records.images) + 1, file_name=name)
        records.images.append(image)
        label = _label_file(picture)
        if label.is_file():
            records.boxes += _boxes(label, image.id)
            labels.add(label)
        else:
            records.unlabelled.append(name)
    if all(place.is_dir() for place in places):  # a list may leave pictures out
        alone = (Place(_name(f, records.folders)) for f in _label_files(places) if f not in labels)
        findings.add("label-without-picture", records.name, records.source, alone)
    return True


def read_yolo_yaml(file: Path) -> dict[str, Any]:
    """The keys of a data.yaml; nothing in it is ever run or downloaded. Raises BadInput."""
    from ruamel.yaml import YAML  # slow to import, and of no use for other formats
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8-sig"))
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput([str(error).splitlines()[0]]) from None
    if not isinstance(content, dict) or "names" not in content:
        raise BadInput(["is no data.yaml of YOLO's: it has no names"])
    return content


def splits_of(file: Path) -> dict[str, Path]:
    """The splits that a data.yaml names, each with that file itself. Raises BadInput."""
    content = read_yolo_yaml(file)
    return {split: file for split, keys in KEYS.items() if any(content.get(k) for k in keys)}


def root_of(file: Path) -> Path:
    """The folder that all is relative to: the data.yaml's `path`, else its own folder."""
    try:
        path = read_yolo_yaml(file).get("path")
    except BadInput:
        path = None
    own = file.resolve().parent
    root = (own / str(path)).resolve() if path else own
    return root if root.is_dir() else own


def _names(content: dict[str, Any]) -> dict[int, str]:
    names = content["names"]
    found = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(found, dict) or not all(str(i).isdecimal() for i in found):
        raise BadInput(["names is neither a list nor names by number"])
    if content.get("nc") not in (None, len(found)):
        raise BadInput([f"nc is {content['nc']}, but names has {len(found)}"])
    return {int(number): str(name) for number, name in found.items()}


def _places(content: dict[str, Any], file: Path, split: str) -> list[Path]:
    """Folders and lists of pictures of a split."""
    value = next((content[key] for key in KEYS[split] if content.get(key)), None)
    if value is None:
        raise BadInput([f"has no {split}"])
    root = root_of(file)
    found = []
    for entry in value if isinstance(value, list) else [value]:
        place = root / str(entry)
        # Roboflow writes ../train/images for what lies in train/images
        within = root / str(entry).removeprefix("../")
        found.append(within if not place.exists() and within.exists() else place)
    return [place.resolve() for place in found]


def _pictures(places: list[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from sorted(f for f in place.rglob("*") if f.suffix.lower() in SUFFIXES)
        else:
            for line in place.read_text(encoding="utf-8-sig", errors="replace").splitlines():
                if line.strip():
                    yield Path(_absolute(place.parent, line.strip()))


def _name(picture: Path, folders: list[Path]) -> str:
    """Relative to the first folder that holds it; whole, and so found out, where none does."""
    holding = (folder for folder in folders if picture.is_relative_to(folder))
    return next((str(picture.relative_to(folder)) for folder in holding), str(picture))


def _absolute(base: Path, line: str) -> str:
    """Without following links, so that one that leads out is seen as such."""
    return line if line.startswith("/") else f"{base}/{line.removeprefix('./')}"


def _label_file(picture: Path) -> Path:
    """`.../images/a.jpg` has its boxes in `.../labels/a.txt`, else in `a.txt` beside it."""
    there = _label_folder(picture.parent) / picture.with_suffix(".txt").name
    return there if there.is_file() else picture.with_suffix(".txt")


def _label_folder(folder: Path) -> Path:
    """`.../labels` of `.../images`, also below it; the folder itself where it has no such part."""
    parts = list(folder.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _label_files(places: list[Path]) -> Iterator[Path]:
    """Of all pictures that these folders could hold: text files that begin with a class."""
    for folder in sorted({*places, *(_label_folder(place) for place in places)}):
        for file in sorted(folder.rglob("*.txt")):
            with file.open(encoding="utf-8-sig", errors="replace") as stream:
                if stream.readline().partition(" ")[0].isdecimal():
                    yield file


def _boxes(file: Path, image: int) -> Iterator[BoxRecord]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = ["is not UTF-8 text"]
    for number, line in enumerate(lines, start=1):
        if words := line.split():
            label, box = _box(words)
            identity = f"{file.name} line {number}"
            yield BoxRecord(id=identity, image_id=image, category_id=label, bbox=box)


def _box(words: list[str]) -> tuple[Any, Any]:
    """The class, and x, y, width, height as shares; what is neither box nor polygon as it is."""
    try:
        label, *numbers = (float(word) for word in words)
    except ValueError:
        return 0, words
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        return _class(label), [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if len(numbers) != 4:
        return _class(label), numbers
    x, y, width, height = numbers
    return _class(label), [x - width / 2, y - height / 2, width, height]


def _class(label: float) -> int | None:
    return int(label) if label.is_integer() else None
