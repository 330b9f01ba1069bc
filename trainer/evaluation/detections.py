"""Runs a detector on a split: its detections in COCO's result format."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.batches import FeatureLookup
from ..data.canvas import letterbox, scales
from ..data.dataset import Picture, Split
from ..model.detectors import Detector
from ..model.heads import Detect
from ..precision import autocast

BATCH_SIZE = {"cpu": 2, "cuda": 8}
"""Pictures per batch on val during a trial; an export is measured one by one. Few on a CPU, so that
the first feature maps stay in its cache: lite0 at 320 px took up to 1.7 times as long with 8."""
PACKED = np.dtype(
    [(name, np.int64) for name in ("image_id", "category_id")]
    + [(name, np.float64) for name in ("x", "y", "width", "height", "score")]
)


@torch.no_grad()
def detect(
    detector: Detector,
    split: Split,
    canvases: NDArray[np.uint8],
    *,
    precision: str = "fp32",
    batch_size: int = 1,
    features: FeatureLookup | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Detect on the canvases of a split.

    Args:
        detector: Is put into eval mode.
        split: Has the ids and sizes of the pictures.
        canvases: (n, S, S, 3).
        precision: fp32, bf16 or fp16.
        batch_size: Pictures at once.
        features: Cached features of the frozen stages, if there are any.
        on_step: Called before each batch.

    Returns:
        Detections in COCO's result format: the data set's ids, x, y, width, height in pixels of the
        original picture.
    """
    detector.eval()
    device = detector.mean.device
    results: list[dict[str, Any]] = []
    for start in range(0, len(split.pictures), batch_size):
        on_step()
        pictures = split.pictures[start : start + batch_size]
        batch = torch.from_numpy(np.array(canvases[start : start + batch_size])).permute(0, 3, 1, 2)
        positions = range(start, start + len(pictures))
        frozen = features(positions, [False] * len(positions)).to(device) if features else None
        with autocast(device, precision):
            detections = detector(batch.to(device), frozen=frozen)
        for picture, each in zip(pictures, detections, strict=True):
            results += _in_coco(each, picture, split, canvases.shape[1])
    return results


@torch.no_grad()
def detect_singly(detector: Detect, split: Split, size: int) -> list[dict[str, Any]]:
    """Detect with an export of any format, in fp32, one picture at a time."""
    results: list[dict[str, Any]] = []
    for picture in split.pictures:
        pixels = torch.from_numpy(letterbox(picture, size))[None].permute(0, 3, 1, 2)
        (detections,) = detector(pixels)
        results += _in_coco(detections, picture, split, size)
    return results


def _in_coco(
    detections: dict[str, Tensor], picture: Picture, split: Split, size: int
) -> Iterator[dict[str, Any]]:
    """A picture's detections on its canvas in COCO's result format."""
    across, down = scales(picture.width, picture.height, size)
    scale = [across, down, across, down]
    corners = detections["boxes"].cpu().numpy().astype(np.float64) / scale
    for box, label, score in zip(
        to_xywh(corners, picture.width, picture.height).tolist(),
        detections["labels"].tolist(),
        detections["scores"].tolist(),
        strict=True,
    ):
        yield {
            "image_id": picture.id,
            "category_id": split.categories[label - 1].id,
            "bbox": box,
            "score": score,
        }


def to_xywh(corners: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Boxes (n, 4) x1, y1, x2, y2, clipped to the picture, as x, y, width, height."""
    inside = corners.clip(0, [width, height, width, height])
    return np.concatenate([inside[:, :2], inside[:, 2:] - inside[:, :2]], axis=1)


def pack(results: list[dict[str, Any]]) -> NDArray[np.void]:
    """Detections in COCO's result format as rows (n,) of PACKED, a tenth of their size."""
    rows = [(r["image_id"], r["category_id"], *r["bbox"], r["score"]) for r in results]
    return np.array(rows, dtype=PACKED)


def unpack(rows: NDArray[np.void]) -> list[dict[str, Any]]:
    """The inverse of `pack`."""
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, *box, score in rows.tolist()
    ]
