"""Which box each anchor has to predict, for all pictures of a batch at once.

The targets of a batch are padded into one tensor. Matching gives each anchor the position of its
box, BACKGROUND, or EXCLUDED. On a GPU nothing is read back, so its host never waits.

Shapes: N pictures, M boxes a picture, A anchors. Boxes are x1, y1, x2, y2 in canvas pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .loss_terms import area

Targets = list[dict[str, Tensor]]
"""Of each picture `boxes` (n, 4) and `labels` (n,) from 1; some pictures also have `ignored`
(k, 4), boxes in which nothing counts as background."""

NO_BOX, NO_PICTURE, IGNORED = -1, -2, -3
"""Stand in `BatchTargets.labels` for a padding box, a padding picture and an ignored box."""
BACKGROUND, EXCLUDED = -1, -2
"""Stand instead of a box's position for an anchor without a box. An excluded anchor takes part in
no loss: it overlaps a box too much for background and too little for an object, or it lies in an
ignored box or a padding picture."""
INSIDE_FRACTION = 0.5
"""An anchor with at least this fraction of its area in an ignored box is no background. Evaluation
uses the same fraction for detections."""
MAX_PAIRS = {"cpu": 0, "cuda": 1 << 25}
"""Pairs of a box and an anchor that are compared at once. A GPU gets few large calls, a CPU one
picture at a time, which fits its cache."""


class BatchTargets(NamedTuple):
    """The targets of a batch as tensors, each picture padded to the same number of boxes."""

    boxes: Tensor
    """(N, M, 4), M at least 1."""
    labels: Tensor
    """(N, M), from 1; else NO_BOX, IGNORED, or NO_PICTURE in all of a row."""
    has_ignored: bool = False
    """Whether any label may be IGNORED."""

    def padded_to(self, pictures: int, boxes: int) -> "BatchTargets":
        """The same targets with padding up to that many pictures and boxes a picture."""
        more_boxes = (0, boxes - self.labels.shape[1])
        more_pictures = (0, pictures - len(self.labels))
        labels = F.pad(self.labels, more_boxes, value=NO_BOX)
        labels = F.pad(labels, (0, 0, *more_pictures), value=NO_PICTURE)
        padded = F.pad(self.boxes, (0, 0, *more_boxes, *more_pictures))
        return BatchTargets(padded, labels, self.has_ignored)

    def select(self, mask: Tensor) -> "BatchTargets":
        """The boxes of a mask (N, M), as objects of one class; the others become padding."""
        boxes = torch.where(mask[..., None], self.boxes, 0.0)
        return BatchTargets(boxes, torch.where(mask, 1, NO_BOX))


Matcher = Callable[[BatchTargets, Tensor], Tensor]
"""Matches anchors (A, 4) to the boxes of n pictures; returns (n, A) like `match_anchors`."""


def pad_targets(targets: Targets) -> BatchTargets:
    """Pad the targets of N pictures into one tensor."""
    boxes = [target["boxes"] for target in targets]
    labels = [target["labels"] for target in targets]
    has_ignored = any("ignored" in target for target in targets)
    if has_ignored:
        ignored = [target.get("ignored", target["boxes"][:0]) for target in targets]
        boxes = [torch.cat(pair) for pair in zip(boxes, ignored, strict=True)]
        labels = [
            torch.cat([known, known.new_full(more.shape[:1], IGNORED)])
            for known, more in zip(labels, ignored, strict=True)
        ]
    batch = BatchTargets(pad_sequence(boxes, True), pad_sequence(labels, True, NO_BOX), has_ignored)
    return batch.padded_to(len(targets), max(1, batch.labels.shape[1]))


def match_anchors(targets: BatchTargets, anchors: Tensor, match: Matcher) -> Tensor:
    """Match the anchors of every picture to its boxes.

    Args:
        targets: The boxes of N pictures.
        anchors: (A, 4), the same for every picture.
        match: Matches some of the pictures; it gets as many at once as MAX_PAIRS allows.

    Returns:
        (N, A): the position of each anchor's box among the M of its picture, BACKGROUND, or
        EXCLUDED.
    """
    count, most = targets.labels.shape
    on_cpu = anchors.device.type == "cpu"
    chunk = max(1, MAX_PAIRS["cpu" if on_cpu else "cuda"] // (most * len(anchors)))
    matches = []
    for start in range(0, count, chunk):
        boxes, labels = (part[start : start + chunk] for part in targets[:2])
        if on_cpu:  # reading a value back costs nothing there, and leaves padding out
            filled = max(1, int(((labels > 0) | (labels == IGNORED)).sum(dim=1).max()))
            boxes, labels = boxes[:, :filled], labels[:, :filled]
        some = BatchTargets(boxes, labels)
        matches.append(_match_with_ignored(some, anchors, match, targets.has_ignored))
    is_picture = targets.labels[:, :1] != NO_PICTURE  # (N, 1)
    return torch.where(is_picture, torch.cat(matches), EXCLUDED)


def _match_with_ignored(
    targets: BatchTargets, anchors: Tensor, match: Matcher, has_ignored: bool
) -> Tensor:
    """Match to the objects alone; background in ignored boxes becomes EXCLUDED."""
    if not has_ignored:
        return match(targets, anchors)
    matches = match(targets.select(targets.labels > 0), anchors)
    ignored = targets.select(targets.labels == IGNORED)
    # excluded is what an ignored box would match as an object, and what lies inside of one
    excluded = inside_any(ignored.boxes, anchors) | (match(ignored, anchors) != BACKGROUND)
    return torch.where((matches == BACKGROUND) & excluded, EXCLUDED, matches)


def inside_any(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Whether each of the anchors (A, 4) lies in one of the boxes (..., M, 4): (..., A) bools."""
    areas = area(anchors[:, 2:] - anchors[:, :2])
    return (_intersections(boxes, anchors) >= INSIDE_FRACTION * areas).any(dim=-2)


def match_by_thresholds(
    targets: BatchTargets, anchors: Tensor, background_below: float, foreground_from: float
) -> Tensor:
    """RetinaNet's matching by two IoU thresholds; each box also keeps the anchors that fit it best.

    Returns:
        (N, A): position of a box, BACKGROUND below the lower threshold, EXCLUDED between both.
    """
    overlaps, is_box = _overlaps(targets, anchors)  # (N, M, A), (N, M, 1)
    best, nearest = overlaps.max(dim=1)  # (N, A) each
    matches = torch.where(best < foreground_from, EXCLUDED, nearest)
    matches = torch.where(best < background_below, BACKGROUND, matches)
    fits_best = (overlaps == overlaps.amax(dim=2, keepdim=True)) & is_box
    return torch.where(fits_best.any(dim=1), nearest, matches)


def match_best_first(targets: BatchTargets, anchors: Tensor, foreground_from: float) -> Tensor:
    """SSD's matching: each box gets the anchor that fits it best, then one IoU threshold decides.

    Where several boxes have the same best anchor, the last of them gets it.

    Returns:
        (N, A): position of a box, or BACKGROUND.
    """
    overlaps, is_box = _overlaps(targets, anchors)  # (N, M, A), (N, M, 1)
    best, nearest = overlaps.max(dim=1)  # (N, A) each
    matches = torch.where(best < foreground_from, BACKGROUND, nearest)
    best_anchors = overlaps.max(dim=2).indices  # (N, M)
    positions = torch.arange(overlaps.shape[1], device=overlaps.device)
    forced = torch.full_like(matches, BACKGROUND).scatter_reduce_(
        1, best_anchors, torch.where(is_box[..., 0], positions, BACKGROUND), "amax"
    )
    return torch.where(forced >= 0, forced, matches)


def match_points(
    targets: BatchTargets, points: Tensor, sizes: tuple[Tensor, Tensor], radius: float
) -> Tensor:
    """FCOS's matching: a point belongs to the smallest box that fits its level and its centre.

    Args:
        targets: The boxes of N pictures.
        points: (A, 4), squares as large as the stride of their level.
        sizes: Limits (A,) each for the distance to the farthest side, see `fcos_size_limits`.
        radius: How far from a box's centre a point may be, in sizes of the point.

    Returns:
        (N, A): position of a box, or BACKGROUND.
    """
    left, top, right, bottom = targets.boxes[..., None].unbind(dim=-2)  # (N, M, 1) each
    x, y = ((points[:, :2] + points[:, 2:]) / 2).T  # (A,) each
    off_centre = torch.maximum((x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs())
    across, down = (x - left, right - x), (y - top, bottom - y)  # (N, M, A) each
    nearest = torch.minimum(torch.minimum(*across), torch.minimum(*down))
    farthest = torch.maximum(torch.maximum(*across), torch.maximum(*down))
    fits = (off_centre < radius * (points[:, 2] - points[:, 0])) & (nearest > 0)
    fits &= (farthest > sizes[0]) & (farthest < sizes[1])
    # torchvision's formula: fp32 has no digits left for smaller differences between areas
    preference = torch.where(fits, 1e8 - (right - left) * (bottom - top), 0.0)
    best, matches = preference.max(dim=1)  # (N, A) each
    return torch.where(best < 1e-5, BACKGROUND, matches)


def fcos_size_limits(points: Tensor, levels: list[int]) -> tuple[Tensor, Tensor]:
    """Limits for the distance from each of FCOS's points (A, 4) to the farthest side of its box.

    They are 4 and 8 times the point's size; the first level has no lower and the last no upper one.
    `levels` says how many points each level has.
    """
    size = points[:, 2] - points[:, 0]
    least, most = size * 4, size * 8
    least[: levels[0]], most[-levels[-1] :] = 0, torch.inf
    return least, most


def _overlaps(targets: BatchTargets, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """IoU (N, M, A) of boxes and anchors, -1 for padding, and whether each box is one (N, M, 1)."""
    is_box = (targets.labels > 0)[..., None]
    return pairwise_iou(targets.boxes, anchors).masked_fill_(~is_box, -1), is_box


def pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """IoU (..., A) of boxes (..., 4) and anchors (A, 4).

    The same bits as torchvision's `box_iou`, which takes several times as long on a CPU, since it
    works on pairs of corners.
    """
    intersections = _intersections(boxes, anchors)
    box_areas, anchor_areas = (area(c[..., 2:] - c[..., :2]) for c in (boxes, anchors))
    areas: Tensor = box_areas[..., None] + anchor_areas
    return intersections / (areas - intersections)


def _intersections(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Areas (..., A) in which boxes (..., 4) and anchors (A, 4) overlap."""
    left, top, right, bottom = boxes[..., None].unbind(dim=-2)  # (..., 1) each
    x1, y1, x2, y2 = anchors.T.contiguous()  # (A,) each
    width = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_(min=0)
    height = (torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_(min=0)
    return width.mul_(height)
