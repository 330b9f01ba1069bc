"""Small detectors with new weights, pictures and targets, for tests of several files."""

from functools import cache
from typing import Any, get_args

import torch
from torch import Tensor

from trainer.config import Model, NewDetector
from trainer.model.detectors import Detector, build

SIZE = 64
DETECTORS = get_args(NewDetector)


def new(name: Any, classes: int = 2, size: int = SIZE, unsure: bool = False) -> Detector:
    torch.manual_seed(0)
    detector = build(Model(detector=name, weights="none", image_size=size), classes)
    if unsure and name in {
        "retinanet",
        "fcos",
    }:  # so that every class is detected, as in the others
        with torch.no_grad():
            detector.get_parameter("head.head.classification_head.cls_logits.bias").zero_()
    return detector


@cache
def shared(name: str, classes: int = 2) -> Detector:
    return new(name, classes, unsure=True)


def pictures(count: int = 2, size: int = SIZE) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)


def target(*labels: int) -> dict[str, Tensor]:
    corners = [[4.0 + i, 8.0, 36.0 + i, 40.0] for i in range(len(labels))]
    return {
        "boxes": torch.tensor(corners).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


@torch.no_grad()
def detections(
    detector: Detector, count: int = 2, precision: Any = None, size: int = SIZE
) -> list[dict[str, Tensor]]:
    detector.eval()
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        result: list[dict[str, Tensor]] = detector(pictures(count, size))
        return result
