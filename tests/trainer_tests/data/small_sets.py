"""Small COCO data sets on disk, for tests."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.config import Data, InputError
from trainer.data.formats.layouts import ROBOFLOW
from trainer.data.loading import load

Coco = dict[str, Any]


CACHE = Path("/nowhere/that/can/be/written")


NAMES = ({"id": 7, "name": "blue"}, {"id": 3, "name": "red"})


def coco(pictures: list[str], categories: Any = NAMES) -> Coco:
    """A picture's boxes: one of each category."""
    images = [{"id": 10 + i, "file_name": name} for i, name in enumerate(pictures)]
    pairs = [(image, category) for image in images for category in categories]
    annotations = [
        {
            "id": 1 + i,
            "image_id": image["id"],
            "category_id": category["id"],
            "bbox": [i % 16, 2, 3, 4],
        }
        for i, (image, category) in enumerate(pairs)
    ]
    return {"images": images, "annotations": annotations, "categories": list(categories)}


def draw(folder: Path, *names: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        colour = tuple(hashlib.sha256(name.encode()).digest()[:3])
        Image.new("RGB", (20, 10), colour).save(folder / name)
    return list(names)


def write(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def errors_of(data: Data) -> list[str]:
    with pytest.raises(InputError) as raised:
        load(data, CACHE)
    return raised.value.errors


def rewrite(file: Path | None, change: Callable[[Coco], Any]) -> None:
    assert file
    content = json.loads(file.read_text())
    change(content)
    write(file, content)


def roboflow_export(root: Path) -> Path:
    """As Roboflow exports it: a folder a split, and a root category 0 without boxes."""
    categories = [
        {"id": 1, "name": "red", "supercategory": "cells"},
        {"id": 2, "name": "blue", "supercategory": "cells"},
    ]
    for folder in ("train", "valid", "test"):
        content = coco(draw(root / folder, f"{folder}.png"), categories)
        content["categories"].insert(0, {"id": 0, "name": "cells", "supercategory": "none"})
        write(root / folder / ROBOFLOW, content)
    return root


def small_set(folder: Path) -> Data:
    """A sound data set of two pictures to train on and one to evaluate on."""
    train, val = draw(folder, "a.png", "b.png"), draw(folder, "c.png")
    return Data(
        train=write(folder / "train.json", coco(train)),
        val=write(folder / "val.json", coco(val)),
    )
