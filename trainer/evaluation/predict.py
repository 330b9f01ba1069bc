"""Detection on any pictures with an export."""

import glob
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config import InputError
from ..data.canvas import to_canvas
from ..data.dataset import Category
from ..data.formats.folders import is_hidden
from ..data.pixels import SUFFIXES
from ..model.heads import Detect
from .detections import to_xywh
from .drawing import Box


def find_pictures(places: list[Path]) -> list[Path]:
    """The pictures that files, folders and patterns (`*.jpg`) name, each once.

    Raises:
        InputError: There is none.
    """
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = (f for f in place.iterdir() if f.suffix.lower() in SUFFIXES)
            # a broken link stays: it is reported as unreadable
            files += sorted(f for f in inside if not f.is_dir() and not is_hidden(f.name))
        elif place.is_file():
            files.append(place)
        elif glob.has_magic(str(place)):
            matches = map(Path, glob.glob(str(place), recursive=True))  # noqa: PTH207 - absolute too
            files += sorted(f for f in matches if not f.is_dir())
        else:
            raise InputError([f"{place}: no such picture or folder"])
    files = list(dict.fromkeys(files))
    if not files:
        raise InputError([f"no pictures in {', '.join(map(str, places))}"])
    return files


@torch.no_grad()
def predict(
    detector: Detect,
    categories: tuple[Category, ...],
    picture: Image.Image,
    size: int,
    threshold: float | dict[str, float],
) -> list[Box]:
    """Detections on one upright RGB picture, best first.

    Args:
        detector: Gets a canvas (1, 3, size, size).
        categories: The classes; label 1 is the first.
        picture: Upright and in RGB.
        size: Side of the canvas in pixels.
        threshold: The least score, one for all classes or one for each class name.
    """
    least = threshold if isinstance(threshold, dict) else {c.name: threshold for c in categories}
    canvas = to_canvas(picture, size)
    pixels = torch.from_numpy(canvas.pixels)[None].permute(0, 3, 1, 2)
    (detections,) = detector(pixels)
    corners = detections["boxes"].numpy().astype(np.float64) / [*canvas.scale, *canvas.scale]
    boxes = to_xywh(corners, picture.width, picture.height).tolist()
    labels, scores = detections["labels"].tolist(), detections["scores"].tolist()
    return [
        Box(categories[label - 1], score, tuple(box))
        for box, label, score in zip(boxes, labels, scores, strict=True)
        if score >= least[categories[label - 1].name]
    ]


def to_coco(image_id: int, boxes: list[Box]) -> Iterator[dict[str, object]]:
    """Detections in COCO's result format."""
    for box in boxes:
        yield {
            "image_id": image_id,
            "category_id": box.category.id,
            "bbox": list(box.xywh),
            "score": box.score,
        }
