"""Augmentation of pictures and boxes together, by torchvision's transforms."""

from math import exp, log

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

FLIPPING = {"flip", "light_flip"}
"""Values of `train.augment` that mirror every other picture."""
LIGHT = {"light", "light_flip"}
"""Values of `train.augment` that change a picture's tone, size and place."""
ZOOM = (0.8, 1.4)
TONE = (0.85, 1.15)
"""Range of the factors of brightness and of contrast."""
GREY = 127
KEPT = 0.4
"""Share of a box's area that must be left of it in the cut; else it is no target any more."""


def flip(
    pictures: Tensor, targets: list[dict[str, Tensor]], flips: list[bool]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Mirror the chosen pictures left to right, boxes too."""
    pictures = pictures.clone()
    for picture, flipped in zip(pictures, flips, strict=True):
        if flipped:  # one by one: a tenth of the time of a choice for the whole batch
            picture.copy_(functional.horizontal_flip(picture))
    mirrored = [
        {**own, "boxes": _plain(functional.horizontal_flip(_boxes(own, pictures.shape[-1])))}
        if flipped
        else own
        for own, flipped in zip(targets, flips, strict=True)
    ]
    return pictures, mirrored


def light(
    picture: Tensor, target: dict[str, Tensor], random: np.random.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Another brightness, contrast, size and place of a uint8 canvas (3, S, S) and its boxes.

    Zoomed in, the canvas shows a cut of itself; zoomed out, grey borders.
    """
    size = picture.shape[-1]
    zoom = exp(random.uniform(log(ZOOM[0]), log(ZOOM[1])))
    cut = size / zoom
    # the cut lies anywhere in the canvas, or the canvas anywhere in the cut
    starts = [float(share) * (size - cut) for share in random.uniform(size=2)]
    brightness, contrast = (float(factor) for factor in random.uniform(*TONE, size=2))

    # of the middle of the canvas, around which torchvision zooms
    shift = [zoom * (size / 2 - start) - size / 2 for start in starts]
    move = {"angle": 0.0, "translate": shift, "scale": zoom, "shear": [0.0, 0.0]}
    bilinear = InterpolationMode.BILINEAR
    pixels = functional.affine(picture, **move, interpolation=bilinear, fill=GREY)
    pixels = functional.adjust_brightness(pixels, brightness)
    pixels = functional.adjust_contrast(pixels, contrast)

    whole = functional.affine(_boxes(target, size), **move)
    inside = functional.clamp_bounding_boxes(whole, clamping_mode="soft")
    keep = _areas(inside) >= KEPT * _areas(whole)
    return pixels, {"boxes": _plain(inside)[keep], "labels": target["labels"][keep]}


def _boxes(target: dict[str, Tensor], size: int) -> BoundingBoxes:
    return BoundingBoxes(
        target["boxes"],
        format=BoundingBoxFormat.XYXY,
        canvas_size=(size, size),
        clamping_mode=None,
    )


def _plain(boxes: Tensor) -> Tensor:
    return boxes.as_subclass(Tensor)


def _areas(boxes: Tensor) -> Tensor:
    boxes = _plain(boxes)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
