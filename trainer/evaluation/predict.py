"""Detection on any pictures with an export, and pictures with the boxes drawn."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..config import BadInput
from ..data.canvas import to_canvas
from ..data.dataset import Category
from ..data.formats.folders import is_hidden
from ..data.pixels import SUFFIXES
from ..model.heads import Detect
from ..text.escaping import printable
from .coco_metrics import to_xywh

SMALL, NARROW, LARGE = 480, 160, 8000
"""Pixels; a picture whose longer side has fewer than SMALL, or the shorter one fewer than NARROW,
is drawn enlarged, so that names can be read, unless its longer side would have more than LARGE."""
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


@dataclass(frozen=True)
class Box:
    """One detection in the original picture's pixels."""

    category: Category
    score: float | None
    """None for a true box."""
    xywh: tuple[float, float, float, float]


def find_pictures(places: list[Path]) -> list[Path]:
    """The pictures that files, folders and patterns (`*.jpg`) name, each once.

    Raises BadInput when there is none.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = (f for f in place.iterdir() if f.suffix.lower() in SUFFIXES)
            # a link to nowhere is told
            found += sorted(f for f in inside if not f.is_dir() and not is_hidden(f.name))
        elif place.is_file():
            found.append(place)
        elif glob.has_magic(str(place)):
            matches = map(Path, glob.glob(str(place), recursive=True))
            found += sorted(f for f in matches if not f.is_dir())
        else:
            raise BadInput([f"{place}: no such picture or folder"])
    found = list(dict.fromkeys(found))
    if not found:
        raise BadInput([f"no pictures in {', '.join(map(str, places))}"])
    return found


@torch.no_grad()
def predict(
    detector: Detect,
    categories: tuple[Category, ...],
    picture: Image.Image,
    size: int,
    threshold: float | dict[str, float],
) -> list[Box]:
    """Detections on one upright RGB picture, best first, with a score of at least `threshold`,
    which may be one for each class by name."""
    least = threshold if isinstance(threshold, dict) else {c.name: threshold for c in categories}
    canvas = to_canvas(picture, size)
    pixels = torch.from_numpy(canvas.pixels)[None].permute(0, 3, 1, 2)
    (found,) = detector(pixels)
    corners = found["boxes"].numpy().astype(np.float64) / [*canvas.scale, *canvas.scale]
    boxes = to_xywh(corners, picture.width, picture.height)
    return [
        Box(categories[label - 1], score, tuple(box))
        for box, label, score in zip(
            boxes.tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True
        )
        if score >= least[categories[label - 1].name]
    ]


def draw(
    picture: Image.Image,
    boxes: list[Box],
    truth: list[Box] | None = None,
    *,
    enlarge: bool = True,
) -> Image.Image:
    """The picture with its boxes, names and scores; true boxes in white beneath.

    A small picture comes back enlarged by a whole factor, unless told not to.
    """
    factor = 1
    if enlarge:
        factor = max(-(-SMALL // max(picture.size)), -(-NARROW // min(picture.size)))
        factor = max(1, min(factor, LARGE // max(picture.size)))
    drawn = picture.resize((picture.width * factor, picture.height * factor))
    pen = ImageDraw.Draw(drawn)
    side = min(max(drawn.size), 4 * min(drawn.size))  # of a strip not its length
    thick = max(2, round(side / 320))
    font = ImageFont.load_default(size=max(14, round(side / 45)))
    for box in truth or []:
        pen.rectangle(_corners(box, factor), outline="white", width=thick)
    for box in reversed(boxes):  # the most certain on top
        pen.rectangle(_corners(box, factor), outline=_colour(box), width=thick)
    for box in reversed(boxes):  # no box crosses a name
        score = "" if box.score is None else f" {box.score:.2f}"
        name = printable(box.category.name)
        _label(pen, _corners(box, factor), f"{name}{score}", _colour(box), font)
    return drawn


def _colour(box: Box) -> str:
    return COLOURS[box.category.id % len(COLOURS)]


def _corners(box: Box, factor: int) -> tuple[float, float, float, float]:
    x, y, width, height = (factor * value for value in box.xywh)
    return x, y, x + width, y + height


def _label(
    pen: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write above the box where there is room, else inside it at its top."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = max(0, min(corners[0], pen.im.size[0] - width))
    y = corners[1] - height if corners[1] >= height else corners[1]
    red, green, blue = ImageColor.getrgb(colour)[:3]
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "white"
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), text, fill=ink, font=font)


def free_name(file: Path, taken: set[str]) -> str:
    """A name for a drawn picture that no other has, though folders may hold equal names; it joins
    those that are taken."""
    name, n = f"{file.stem}.jpg", 1
    while name.casefold() in taken:  # of the many disks on which `A.jpg` is `a.jpg`
        n += 1
        name = f"{file.stem}-{n}.jpg"
    taken.add(name.casefold())
    return name


def to_coco(image_id: int, boxes: list[Box]) -> Iterator[dict[str, object]]:
    """Detections in COCO's result format."""
    for box in boxes:
        yield {
            "image_id": image_id,
            "category_id": box.category.id,
            "bbox": list(box.xywh),
            "score": box.score,
        }
