"""How COCO files, Roboflow exports and the embedded data set are read."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config import BadInput, Data
from .dataset import Category, Picture, Split, Splits
from .digits import make_digits
from .split import split_off
from .validate import check_coco

ROBOFLOW = "_annotations.coco.json"
SPLIT_NAMES = ("train", "val", "test")


def load(data: Data | str, cache: Path) -> Splits:
    """Read a data set: the `data:` part of a config, or `digits` for the embedded one.

    Raises BadInput with every error of every file.
    """
    if data == "digits":
        data = find(make_digits(cache))
    assert isinstance(data, Data)
    errors: list[str] = []
    notes: list[str] = []
    raw = {
        name: _read_json(f"data.{name}", file, errors)
        for name in SPLIT_NAMES
        if (file := getattr(data, name)) is not None
    }
    folders = {name: _image_folders(data, name) for name in raw}
    for name, content in raw.items():
        if content:
            errors += check_coco(f"data.{name}", content, folders[name]).errors
    if errors:
        raise BadInput(errors)
    categories = _categories(raw, notes, errors)
    splits = {
        name: Split(name, _pictures(name, content, folders[name], categories, errors), categories)
        for name, content in raw.items()
    }
    if errors:
        raise BadInput(errors)
    if "val" not in splits:
        splits["train"], splits["val"] = split_off(splits["train"], "val", data.val_fraction)
        notes.append(
            f"no val given: {len(splits['val'].pictures)} of the pictures of train are val, "
            "chosen by content"
        )
    return Splits(splits["train"], splits["val"], splits.get("test"), tuple(notes))


def find(place: Path) -> Data:
    """Guess the `data:` part from a COCO json, a folder of them, or a Roboflow export.

    Raises BadInput saying what was looked for.
    """
    if place.is_file():
        return Data(train=place)
    files = {name: file for name in SPLIT_NAMES if (file := _split_file(place, name))}
    if "train" not in files:
        raise BadInput(
            [
                f"{place}: found no train.json and no train/{ROBOFLOW} here; give a COCO json, a "
                "folder with train.json (val.json, test.json), or a Roboflow COCO export"
            ]
        )
    images = place / "images"
    return Data(
        train=files["train"],
        val=files.get("val"),
        test=files.get("test"),
        images=images if images.is_dir() else None,
    )


def _split_file(place: Path, name: str) -> Path | None:
    aliases = {"val": ("val", "valid")}.get(name, (name,))
    for alias in aliases:
        for file in (place / f"{alias}.json", place / alias / ROBOFLOW):
            if file.is_file():
                return file
    return None


def _read_json(path: str, file: Path, errors: list[str]) -> dict[str, Any]:
    if not file.is_file():
        errors.append(f"{path}: no file {file}")
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        errors.append(f"{path}: {file}, line {error.lineno}, column {error.colno}: {error.msg}")
        return {}
    except UnicodeDecodeError:
        errors.append(f"{path}: {file} is not UTF-8 text")
        return {}
    parts = ("images", "annotations", "categories")
    lacking = [
        p for p in parts if not isinstance(content, dict) or not isinstance(content.get(p), list)
    ]
    if lacking:
        errors.append(
            f"{path}: {file} is no COCO json: it has no list {' and no list '.join(lacking)}"
        )
        return {}
    coco: dict[str, Any] = content
    return coco


def _categories(
    raw: dict[str, dict[str, Any]], notes: list[str], errors: list[str]
) -> tuple[Category, ...]:
    """The classes of all splits by id, without Roboflow's unused root category."""
    found: dict[int, str] = {}
    used = set()
    supers = set()
    for split, content in raw.items():
        for category in content["categories"]:
            name = found.setdefault(category["id"], category["name"])
            if name != category["name"]:
                errors.append(
                    f"data.{split}: category {category['id']} is {category['name']!r} here and "
                    f"{name!r} elsewhere"
                )
            supers.add(category.get("supercategory"))
        used |= {annotation["category_id"] for annotation in content["annotations"]}
    roots = [i for i, name in found.items() if i not in used and name in supers]
    for root in roots:
        notes.append(f"category {root} ({found[root]}) is a root without boxes: dropped")
    return tuple(Category(i, found[i]) for i in sorted(found) if i not in roots)


def _image_folders(data: Data, name: str) -> list[Path]:
    """Where the pictures of a split may lie, in the order to look."""
    images = data.images.get(name) if isinstance(data.images, dict) else data.images  # type: ignore[call-overload]
    if images is not None:
        return [images]
    file: Path = getattr(data, name)
    return [file.parent, file.parent / "images"]


def _pictures(
    name: str,
    content: dict[str, Any],
    folders: list[Path],
    categories: tuple[Category, ...],
    errors: list[str],
) -> tuple[Picture, ...]:
    label = {category.id: i for i, category in enumerate(categories, start=1)}
    boxes: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        boxes[annotation["image_id"]].append(annotation)

    def read(image: dict[str, Any]) -> Picture | str:
        own = boxes[image["id"]]
        file = next(f for d in folders if (f := d / image["file_name"]).is_file())
        try:
            width, height = _size(file)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            return f"data.{name}: {file} cannot be read as a picture ({error})"
        return Picture(
            id=image["id"],
            file=file.resolve(),
            width=width,
            height=height,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            boxes=np.array([a["bbox"] for a in own], dtype=np.float64).reshape(-1, 4),
            labels=np.array([label[a["category_id"]] for a in own], dtype=np.int64),
            crowd=np.array([bool(a.get("iscrowd", 0)) for a in own], dtype=np.bool_),
        )

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(read, content["images"]))
    errors += [line for line in found if isinstance(line, str)]
    return tuple(picture for picture in found if isinstance(picture, Picture))


def _size(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        turned = picture.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 lie on their side
        width, height = picture.size
    return (height, width) if turned else (width, height)
