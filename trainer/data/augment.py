"""Augmentation of pictures and boxes together."""

import torch
from torch import Tensor


def flip(
    pictures: Tensor, targets: list[dict[str, Tensor]], flips: list[bool]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Mirror the chosen pictures left to right, boxes too."""
    width = pictures.shape[-1]
    chosen = torch.tensor(flips).reshape(-1, 1, 1, 1)
    pictures = torch.where(chosen, pictures.flip(-1), pictures)
    mirrored = []
    for own, flipped in zip(targets, flips, strict=True):
        x1, y1, x2, y2 = own["boxes"].unbind(1)
        boxes = torch.stack([width - x2, y1, width - x1, y2], dim=1) if flipped else own["boxes"]
        mirrored.append({**own, "boxes": boxes})
    return pictures, mirrored
