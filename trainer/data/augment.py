"""Augmentation of pictures and boxes together."""

from math import exp, log

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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
    width = pictures.shape[-1]
    pictures = pictures.clone()
    for picture, flipped in zip(pictures, flips, strict=True):
        if flipped:  # one by one: a tenth of the time of a choice for the whole batch
            picture.copy_(picture.flip(-1))
    mirrored = []
    for own, flipped in zip(targets, flips, strict=True):
        x1, y1, x2, y2 = own["boxes"].unbind(1)
        boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1) if flipped else own["boxes"]
        mirrored.append({**own, "boxes": boxes})
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
    left, top = (float(share) * (size - cut) for share in random.uniform(size=2))
    brightness, contrast = (float(factor) for factor in random.uniform(*TONE, size=2))

    # in the coordinates of affine_grid, where the canvas reaches from -1 to 1
    center = [(2 * start + cut) / size - 1 for start in (left, top)]
    where = torch.tensor([[1 / zoom, 0, center[0]], [0, 1 / zoom, center[1]]])
    grid = functional.affine_grid(where[None], [1, 3, size, size], align_corners=False)
    pixels = picture[None].float() - GREY  # what lies outside is sampled as 0
    pixels = functional.grid_sample(pixels, grid, align_corners=False)[0]
    pixels = pixels * contrast + GREY * brightness

    whole = (target["boxes"] - torch.tensor([left, top, left, top])) * zoom
    inside = whole.clamp(0, size)
    keep = _areas(inside) >= KEPT * _areas(whole)
    return (
        pixels.clamp(0, 255).round().to(torch.uint8),
        {"boxes": inside[keep], "labels": target["labels"][keep]},
    )


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
