"""Losses of RetinaNet, FCOS and SSD, for all pictures of a batch at once.

torchvision computes them picture by picture and picks out the foreground anchors, so a GPU's host
waits some ten times a picture for their number. Here the host never waits: all anchors take part,
those that do not count with weight 0. The losses equal torchvision's up to rounding; on a CPU they
take less than half the time.

Shapes: N pictures, A anchors, K classes. Boxes are x1, y1, x2, y2 in canvas pixels.
"""

from functools import partial
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxLinearCoder

from .loss_terms import FocalLoss, giou_loss
from .matching import (
    EXCLUDED,
    NO_PICTURE,
    BatchTargets,
    fcos_size_limits,
    match_anchors,
    match_best_first,
    match_by_thresholds,
    match_points,
)

MAX_LOG_SIZE = log(1000 / 16)
"""Upper limit of the logarithm of a box's size over its anchor's, the same as torchvision's."""


def retinanet_losses(
    targets: BatchTargets,
    outputs: dict[str, Tensor],
    anchors: Tensor,
    *,
    background_below: float,
    foreground_from: float,
    box_loss: str,
) -> dict[str, Tensor]:
    """RetinaNet's focal loss of the classes, and L1 or GIoU loss of the boxes.

    Like torchvision's: the sum of each picture over its foreground anchors, then the mean of the
    pictures.

    Args:
        targets: The boxes and labels of N pictures.
        outputs: `cls_logits` (N, A, K) and `bbox_regression` (N, A, 4).
        anchors: (A, 4), the same for every picture.
        background_below: An anchor is background where its IoU with every box is below this.
        foreground_from: An anchor is foreground from this IoU on, or where it fits a box best.
        box_loss: `l1` or `giou`.
    """
    match = partial(
        match_by_thresholds, background_below=background_below, foreground_from=foreground_from
    )
    matches = match_anchors(targets, anchors, match)  # (N, A)
    foreground = matches >= 0
    pictures = (targets.labels[:, 0] != NO_PICTURE).sum()
    weight = 1 / (pictures * foreground.sum(dim=1, keepdim=True).clamp(min=1))  # (N, 1)
    focal = _focal_loss(targets, matches, outputs["cls_logits"])  # (N, A)

    chosen = _foreground_index(foreground)  # (F,) of the foreground on a CPU, else (N, A)
    offsets, anchors = outputs["bbox_regression"][chosen], anchors[chosen[1]]
    boxes = _matched_values(targets.boxes, matches)[chosen]
    if box_loss == "giou":
        box_losses = giou_loss(_decode(offsets, anchors), boxes)
    else:
        box_losses = F.l1_loss(offsets, _encode(boxes, anchors), reduction="none").sum(dim=-1)
    box_losses = box_losses * weight.expand_as(matches)[chosen]
    return {
        "classification": (focal * weight).sum(),
        "bbox_regression": torch.where(foreground[chosen], box_losses, 0.0).sum(),
    }


def fcos_losses(
    targets: BatchTargets,
    outputs: dict[str, Tensor],
    points: Tensor,
    *,
    levels: list[int],
    radius: float,
) -> dict[str, Tensor]:
    """FCOS's focal loss of the classes, GIoU loss of the boxes, and cross entropy of centredness.

    Like torchvision's: each is a sum over the batch, divided by its foreground points. A point is
    foreground when it is inside of a box and near its centre, and its level fits the box's size.

    Args:
        targets: The boxes and labels of N pictures.
        outputs: `cls_logits` (N, A, K), `bbox_regression` (N, A, 4) and `bbox_ctrness` (N, A, 1).
        points: (A, 4), as squares, the same for every picture.
        levels: How many of the points each level has.
        radius: How far from a box's centre a point may be, in sizes of the point.
    """
    match = partial(match_points, sizes=fcos_size_limits(points, levels), radius=radius)
    matches = match_anchors(targets, points, match)  # (N, A)
    foreground = matches >= 0
    count = foreground.sum().clamp(min=1)
    focal = _focal_loss(targets, matches, outputs["cls_logits"])  # (N, A)

    chosen = _foreground_index(foreground)  # (F,) of the foreground on a CPU, else (N, A)
    is_used, points = foreground[chosen], points[chosen[1]]
    boxes = _matched_values(targets.boxes, matches)[chosen]
    coder = BoxLinearCoder()
    box_losses = giou_loss(coder.decode(outputs["bbox_regression"][chosen], points), boxes)
    sides = coder.encode(points.expand_as(boxes), boxes)
    centre_losses = F.binary_cross_entropy_with_logits(
        outputs["bbox_ctrness"].squeeze(dim=2)[chosen],
        _centredness(sides, is_used),
        reduction="none",
    )
    return {
        "classification": focal.sum() / count,
        "bbox_regression": torch.where(is_used, box_losses, 0.0).sum() / count,
        "bbox_ctrness": torch.where(is_used, centre_losses, 0.0).sum() / count,
    }


def _centredness(sides: Tensor, is_used: Tensor) -> Tensor:
    """How central points are in their boxes, from 0 to 1, by their distances (..., 4) to its sides.

    Unused points may lie outside of their boxes. They get 0, since the root of a negative number is
    NaN, and so is its gradient times 0.
    """
    left, top, right, bottom = sides.unbind(dim=-1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return torch.where(is_used, across * down, 0.0).sqrt()


def ssd_losses(
    targets: BatchTargets,
    outputs: dict[str, Tensor],
    anchors: Tensor,
    *,
    foreground_from: float,
    negatives: float,
    scales: tuple[float, float, float, float],
) -> dict[str, Tensor]:
    """SSD's cross entropy of the classes, and smooth L1 loss of the boxes.

    Like torchvision's: each is a sum over the batch, divided by its foreground anchors.

    Args:
        targets: The boxes and labels of N pictures.
        outputs: `cls_logits` (N, A, K + 1), where class 0 is the background, and `bbox_regression`
            (N, A, 4), the offsets times `scales`.
        anchors: (A, 4), the default boxes, the same for every picture.
        foreground_from: A default box is foreground from this IoU on, or where it fits a box best.
        negatives: How many background boxes count for each foreground one of a picture: those with
            the largest losses.
        scales: Factors of the four offsets.
    """
    match = partial(match_best_first, foreground_from=foreground_from)
    matches = match_anchors(targets, anchors, match)  # (N, A)
    foreground = matches >= 0
    count = foreground.sum().clamp(min=1)
    labels = torch.where(foreground, _matched_values(targets.labels, matches), 0)
    entropy = F.cross_entropy(outputs["cls_logits"].mT, labels, reduction="none")  # (N, A)
    hardest = _hardest_background(entropy, matches, negatives)

    chosen = _foreground_index(foreground)  # (F,) of the foreground on a CPU, else (N, A)
    boxes = _matched_values(targets.boxes, matches)[chosen]
    offsets = _encode(boxes, anchors[chosen[1]]).unbind(dim=-1)
    wanted = torch.stack([s * offset for s, offset in zip(scales, offsets, strict=True)], dim=-1)
    box_losses = F.smooth_l1_loss(outputs["bbox_regression"][chosen], wanted, reduction="none")
    box_losses = torch.where(foreground[chosen], box_losses.sum(dim=-1), 0.0)
    return {
        "bbox_regression": box_losses.sum() / count,
        "classification": (entropy * foreground + entropy * hardest).sum() / count,
    }


def _hardest_background(entropy: Tensor, matches: Tensor, negatives: float) -> Tensor:
    """Mask (N, A) of the background with the largest losses, `negatives` a foreground box."""
    foreground, is_used = matches >= 0, matches != EXCLUDED
    hardness = torch.where(foreground | ~is_used, -torch.inf, entropy.detach())
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < negatives * foreground.sum(dim=1, keepdim=True)) & is_used


def _foreground_index(foreground: Tensor) -> tuple[Any, Any]:
    """An index of (N, A) tensors that covers the foreground.

    On a CPU it picks the foreground alone. Elsewhere it picks everything: the host would wait for
    the number of foreground anchors.
    """
    if foreground.device.type == "cpu":
        return foreground.nonzero(as_tuple=True)  # type: ignore[return-value]
    return slice(None), slice(None)


def _matched_values(values: Tensor, matches: Tensor) -> Tensor:
    """The label (N, A) or corners (N, A, 4) of each anchor's box; of any box where it has none."""
    rows = torch.arange(len(matches), device=matches.device)[:, None]
    return values[rows, matches.clamp(min=0)]


def _decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (..., 4) that lie at these offsets (..., 4) from their anchors (..., 4)."""
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + size / 2 + offsets[..., :2] * size
    half = offsets[..., 2:].clamp(max=MAX_LOG_SIZE).exp() * size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets (..., 4) of boxes (..., 4) from their anchors (..., 4)."""
    size, wanted = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + wanted / 2 - anchors[..., :2] - size / 2) / size
    return torch.cat([shift, (wanted / size).log()], dim=-1)


def _focal_loss(targets: BatchTargets, matches: Tensor, logits: Tensor) -> Tensor:
    """Focal loss (N, A) of each anchor with a gamma of 2; 0 for excluded anchors."""
    labels = torch.where(matches >= 0, _matched_values(targets.labels, matches), -1)
    loss: Tensor = FocalLoss.apply(logits, labels, matches != EXCLUDED)
    return loss
