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
"""Values of `train.augment` that change a picture's tone, size and place."""
ZOOM = (0.8, 1.4)
TONE = (0.85, 1.15)
"""Range of the factors of brightness and of contrast."""
GREY = 127
"""Beside a picture that was moved or made smaller: the middle of the range."""
KEPT, KEPT_IGNORED = 0.4, 0.01
"""Share of a box's area that must be left of it in the cut; else it is no target any more. What is
left of a box to ignore still is."""


def flip(
    pictures: Tensor, targets: list[dict[str, Tensor]], flips: list[bool]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Mirror the chosen pictures left to right, boxes too."""
    pictures = pictures.clone()
    for picture, flipped in zip(pictures, flips, strict=True):
        if flipped:  # one by one: a tenth of the time of a choice for the whole batch
            picture.copy_(functional.horizontal_flip(picture))
    mirrored = [
        _mirrored(own, pictures.shape[-1]) if flipped else own
        for own, flipped in zip(targets, flips, strict=True)
    ]
    return pictures, mirrored


def _mirrored(target: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    return {
        name: own if name == "labels" else _plain(functional.horizontal_flip(_boxes(own, size)))
        for name, own in target.items()
    }


def light(
    picture: Tensor, target: dict[str, Tensor], random: np.random.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Another brightness, contrast, size and place of a uint8 canvas (3, S, S) and its boxes.

    Zoomed in, the canvas shows a cut of itself; zoomed out, grey borders.
    """
    size = picture.shape[-1]
    zoom = exp(random.uniform(log(ZOOM[0]), log(ZOOM[1])))
    shares = random.uniform(size=2)  # the cut lies anywhere in the canvas, or that in the borders
    brightness, contrast = (float(factor) for factor in random.uniform(*TONE, size=2))

    pixels = _zoom(picture, size, zoom, shares)
    pixels = functional.adjust_brightness(pixels, brightness)
    pixels = functional.adjust_contrast(pixels, contrast)

    def moved(boxes: Tensor, kept: float) -> tuple[Tensor, Tensor]:
        whole = _zoom(_boxes(boxes, size), size, zoom, shares)
        inside = functional.clamp_bounding_boxes(whole, clamping_mode="soft")
        keep = _areas(inside) >= kept * _areas(whole)
        return _plain(inside)[keep], keep

    boxes, keep = moved(target["boxes"], KEPT)
    changed = {"boxes": boxes, "labels": target["labels"][keep]}
    if "ignored" in target:
        changed["ignored"] = moved(target["ignored"], KEPT_IGNORED)[0]
    return pixels, changed


def _zoom(seen: Tensor, size: int, zoom: float, shares: NDArray[np.float64]) -> Tensor:
    """By whole pixels: torchvision's affine transform takes ten times as long."""
    moved: Tensor
    if zoom >= 1:
        cut = round(size / zoom)
        left, top = (round(share * (size - cut)) for share in shares)
        moved = functional.resized_crop(seen, top, left, cut, cut, [size, size])
    else:
        side = round(size * zoom)
        left, top = (round(share * (size - side)) for share in shares)
        border = [left, top, size - side - left, size - side - top]
        moved = functional.pad(functional.resize(seen, [side, side]), border, fill=GREY)
    return moved


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
