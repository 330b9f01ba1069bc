"""Augmentation of pictures and boxes together, by torchvision's transforms."""

from math import exp, log

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

FLIPPING = {"flip", "light_flip"}
"""Values of `train.augment` that mirror every other picture."""
LIGHT = {"light", "light_flip"}
"""Values of `train.augment` that change a picture's tone, size and position."""
ZOOM = (0.8, 1.4)
"""Range of the zoom factor."""
TONE = (0.85, 1.15)
"""Range of the factors for brightness and contrast."""
GREY = 127
"""Fills the borders of a picture that is zoomed out: the middle of the range."""
KEPT, KEPT_IGNORED = 0.4, 0.01
"""Fraction of its area that a box, or an ignored box, must keep in the crop to stay a target."""


def flip(
    pictures: Tensor, targets: list[dict[str, Tensor]], flips: list[bool]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Mirror the chosen pictures and their boxes left to right.

    Args:
        pictures: (n, 3, S, S) uint8.
        targets: Boxes (m, 4) x1, y1, x2, y2 of each picture, with labels.
        flips: Whether each picture is mirrored.
    """
    pictures = pictures.clone()
    for picture, flipped in zip(pictures, flips, strict=True):
        if flipped:  # one by one takes a tenth of the time of indexing the batch
            picture.copy_(functional.horizontal_flip(picture))
    mirrored = [
        _mirrored(target, pictures.shape[-1]) if flipped else target
        for target, flipped in zip(targets, flips, strict=True)
    ]
    return pictures, mirrored


def _mirrored(target: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    return {
        name: value if name == "labels" else _plain(functional.horizontal_flip(_boxes(value, size)))
        for name, value in target.items()
    }


def light(
    picture: Tensor, target: dict[str, Tensor], random: np.random.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Change brightness, contrast, size and position of a uint8 canvas (3, S, S) and its boxes.

    Zoomed in, the canvas shows a crop; zoomed out, it has grey borders.
    """
    size = picture.shape[-1]
    zoom = exp(random.uniform(log(ZOOM[0]), log(ZOOM[1])))
    offsets = random.uniform(size=2)  # where the crop, or the smaller picture, lies
    brightness, contrast = (float(factor) for factor in random.uniform(*TONE, size=2))

    pixels = _zoom(picture, size, zoom, offsets)
    pixels = functional.adjust_brightness(pixels, brightness)
    pixels = functional.adjust_contrast(pixels, contrast)

    def moved(boxes: Tensor, kept: float) -> tuple[Tensor, Tensor]:
        zoomed = _zoom(_boxes(boxes, size), size, zoom, offsets)
        inside = functional.clamp_bounding_boxes(zoomed, clamping_mode="soft")
        keep = _areas(inside) >= kept * _areas(zoomed)
        return _plain(inside)[keep], keep

    boxes, keep = moved(target["boxes"], KEPT)
    changed = {"boxes": boxes, "labels": target["labels"][keep]}
    if "ignored" in target:
        changed["ignored"] = moved(target["ignored"], KEPT_IGNORED)[0]
    return pixels, changed


def _zoom(canvas: Tensor, size: int, zoom: float, offsets: NDArray[np.float64]) -> Tensor:
    """Crop or pad by full pixels: torchvision's affine transform takes ten times as long."""
    zoomed: Tensor
    if zoom >= 1:
        crop = round(size / zoom)
        left, top = (round(offset * (size - crop)) for offset in offsets)
        zoomed = functional.resized_crop(canvas, top, left, crop, crop, [size, size])
    else:
        side = round(size * zoom)
        left, top = (round(offset * (size - side)) for offset in offsets)
        border = [left, top, size - side - left, size - side - top]
        zoomed = functional.pad(functional.resize(canvas, [side, side]), border, fill=GREY)
    return zoomed


def _boxes(corners: Tensor, size: int) -> BoundingBoxes:
    return BoundingBoxes(
        corners,
        format=BoundingBoxFormat.XYXY,
        canvas_size=(size, size),
        clamping_mode=None,
    )


def _plain(boxes: Tensor) -> Tensor:
    return boxes.as_subclass(Tensor)


def _areas(boxes: Tensor) -> Tensor:
    boxes = _plain(boxes)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
