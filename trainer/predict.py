"""Detection on any pictures with an export, and pictures with the boxes drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .config import BadInput
from .data.canvas import to_canvas
from .data.dataset import Category
from .evaluate import to_xywh
from .model.detectors import Detector

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


@dataclass(frozen=True)
class Box:
    """One detection in the original picture's pixels."""

    category: Category
    score: float
    xywh: tuple[float, float, float, float]


def find_pictures(places: list[Path]) -> list[Path]:
    """The pictures that files and folders name, sorted. Raises BadInput when there is none."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(f for f in place.iterdir() if f.suffix.lower() in SUFFIXES)
        elif place.is_file():
            found.append(place)
        else:
            raise BadInput([f"{place}: no such picture or folder"])
    if not found:
        raise BadInput([f"no pictures in {', '.join(map(str, places))}"])
    return found


@torch.no_grad()
def predict(
    detector: Detector,
    categories: tuple[Category, ...],
    picture: Image.Image,
    size: int,
    threshold: float,
) -> list[Box]:
    """Detections on one upright RGB picture with a score of at least `threshold`, best first."""
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
        if score >= threshold
    ]


def draw(picture: Image.Image, boxes: list[Box], truth: list[Box] | None = None) -> Image.Image:
    """The picture with its boxes, names and scores; true boxes in white beneath."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    thick = max(2, round(max(picture.size) / 320))
    font = ImageFont.load_default(size=max(11, round(max(picture.size) / 45)))
    for box in truth or []:
        pen.rectangle(_corners(box), outline="white", width=thick)
    for box in reversed(boxes):  # the most certain on top
        colour = COLOURS[box.category.id % len(COLOURS)]
        pen.rectangle(_corners(box), outline=colour, width=thick)
        _label(pen, box, f"{box.category.name} {box.score:.2f}", colour, font)
    return drawn


def _corners(box: Box) -> tuple[float, float, float, float]:
    x, y, width, height = box.xywh
    return x, y, x + width, y + height


def _label(
    pen: ImageDraw.ImageDraw,
    box: Box,
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = max(0, min(box.xywh[0], pen.im.size[0] - width))
    y = box.xywh[1] - height if box.xywh[1] >= height else box.xywh[1]
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), text, fill="white", font=font)


def to_coco(image_id: int, boxes: list[Box]) -> Iterator[dict[str, object]]:
    """Detections in COCO's result format."""
    for box in boxes:
        yield {
            "image_id": image_id,
            "category_id": box.category.id,
            "bbox": list(box.xywh),
            "score": box.score,
        }
