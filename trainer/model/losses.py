"""RetinaNet's, FCOS's and SSD's losses, of a whole batch at once.

torchvision goes picture by picture and picks out the anchors that found a box, for which a GPU's
host must wait some ten times a picture to be told how many there are. Here it waits for nothing:
all anchors take part, those that do not count without weight. The losses are the same up to
rounding; on a CPU they take less than half the time.
"""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import BoxLinearCoder

from .loss_terms import FocalLoss, area, giou_loss

Targets = list[dict[str, Tensor]]
"""Of each picture `boxes` (n, 4) as x1, y1, x2, y2 and `labels` (n,); where there are some,
`ignored` (k, 4), boxes in which nothing is background."""

ABSENT, NO_PICTURE, IGNORED = -1, -2, -3
"""Instead of a box's label, where a picture has fewer boxes than another, where there is no
picture, and where the box is to be ignored."""
INSIDE = 0.5
"""Share of an anchor in an ignored box from which on it is no background: as much as of a detection
that evaluation then takes for no mistake."""
PAIRS = {"cpu": 0, "cuda": 1 << 25}
"""Boxes times anchors that are compared at once: so a GPU's host has less to tell it; into a CPU's
cache one picture's fit."""
BACKGROUND, UNDECIDED = -1, -2
"""Instead of a box's position, for an anchor that found none, or none clearly."""
LARGEST = log(1000 / 16)
"""Most that the logarithm of a box's size over its anchor's may be, as torchvision has it."""


class Truth(NamedTuple):
    """Targets of a batch in one piece, each picture's filled up to the most that one has."""

    boxes: Tensor
    """(N, M, 4), M at least 1."""
    labels: Tensor
    """(N, M), from 1; else ABSENT, NO_PICTURE all along a row, or IGNORED."""
    ignores: bool = False
    """Whether some may be IGNORED."""

    def filled_up(self, pictures: int, boxes: int) -> "Truth":
        """The same with more pictures and boxes, none of which count."""
        more = (0, boxes - self.labels.shape[1]), (0, pictures - len(self.labels))
        labels = F.pad(
            F.pad(self.labels, more[0], value=ABSENT), (0, 0, *more[1]), value=NO_PICTURE
        )
        return Truth(F.pad(self.boxes, (0, 0, *more[0], *more[1])), labels, self.ignores)

    def only(self, which: Tensor) -> "Truth":
        """The same boxes, of which only `which` (N, M) are there, as objects of one class."""
        boxes = torch.where(which[..., None], self.boxes, 0.0)
        return Truth(boxes, torch.where(which, 1, ABSENT))


def gather(targets: Targets) -> Truth:
    """The targets of a batch in one piece."""
    boxes = [own["boxes"] for own in targets]
    labels = [own["labels"] for own in targets]
    ignores = any("ignored" in own for own in targets)
    if ignores:
        ignored = [own.get("ignored", own["boxes"][:0]) for own in targets]
        boxes = [torch.cat(pair) for pair in zip(boxes, ignored, strict=True)]
        labels = [
            torch.cat([own, own.new_full(more.shape[:1], IGNORED)])
            for own, more in zip(labels, ignored, strict=True)
        ]
    truth = Truth(pad_sequence(boxes, True), pad_sequence(labels, True, ABSENT), ignores)
    return truth.filled_up(len(targets), max(1, truth.labels.shape[1]))


def retinanet_losses(
    truth: Truth,
    outputs: dict[str, Tensor],
    anchors: Tensor,
    *,
    background_below: float,
    foreground_from: float,
    box_loss: str,
) -> dict[str, Tensor]:
    """Focal loss of the classes, and `l1` or `giou` loss of the boxes, as torchvision's RetinaNet
    has them: of each picture over its foreground anchors, then the mean over pictures.

    `outputs` are `cls_logits` (N, A, K) and `bbox_regression` (N, A, 4); `anchors` (A, 4) are those
    of any picture. An anchor is background where its IoU with every box is below the one bound, and
    foreground from the other on, or where no anchor fits one of the boxes better.
    """
    match = partial(_match, background_below=background_below, foreground_from=foreground_from)
    found = _matched(truth, anchors, match)
    foreground = found >= 0
    pictures = (truth.labels[:, 0] != NO_PICTURE).sum()
    weight = 1 / (pictures * foreground.sum(dim=1, keepdim=True).clamp(min=1))
    focal = _focal_loss(truth, found, outputs["cls_logits"])

    chosen = _where(foreground)
    offsets, anchors = outputs["bbox_regression"][chosen], anchors[chosen[1]]
    boxes = _taken(truth.boxes, found)[chosen]
    if box_loss == "giou":
        of_boxes = giou_loss(_decode(offsets, anchors), boxes)
    else:
        of_boxes = F.l1_loss(offsets, _encode(boxes, anchors), reduction="none").sum(dim=-1)
    of_boxes = of_boxes * weight.expand_as(found)[chosen]
    return {
        "classification": (focal * weight).sum(),
        "bbox_regression": torch.where(foreground[chosen], of_boxes, 0.0).sum(),
    }


def fcos_losses(
    truth: Truth,
    outputs: dict[str, Tensor],
    points: Tensor,
    *,
    levels: list[int],
    radius: float,
) -> dict[str, Tensor]:
    """Focal loss of the classes, GIoU loss of the boxes, and cross entropy of how central a point
    is in its box, as torchvision's FCOS has them: each over the foreground points of the batch.

    `outputs` are `cls_logits` (N, A, K), `bbox_regression` (N, A, 4) and `bbox_ctrness` (N, A, 1);
    `points` (A, 4) are those of any picture, as squares, so many of each of the `levels`. One is
    foreground where it is inside of a box, at most `radius` times its size from the middle, and
    the box is neither too small nor too large for its level.
    """
    match = partial(_match_points, sizes=_sizes_of_boxes(points, levels), radius=radius)
    found = _matched(truth, points, match)
    foreground = found >= 0
    count = foreground.sum().clamp(min=1)
    focal = _focal_loss(truth, found, outputs["cls_logits"])

    chosen = _where(foreground)
    counts, points = foreground[chosen], points[chosen[1]]
    boxes = _taken(truth.boxes, found)[chosen]
    coder = BoxLinearCoder()
    of_boxes = giou_loss(coder.decode(outputs["bbox_regression"][chosen], points), boxes)
    left, top, right, bottom = coder.encode(points.expand_as(boxes), boxes).unbind(dim=-1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    # a point outside of its box has no root, and a gradient of 0 times that would be none either
    central = torch.where(counts, across * down, 0.0).sqrt()
    of_centres = F.binary_cross_entropy_with_logits(
        outputs["bbox_ctrness"].squeeze(dim=2)[chosen], central, reduction="none"
    )
    return {
        "classification": focal.sum() / count,
        "bbox_regression": torch.where(counts, of_boxes, 0.0).sum() / count,
        "bbox_ctrness": torch.where(counts, of_centres, 0.0).sum() / count,
    }


def ssd_losses(
    truth: Truth,
    outputs: dict[str, Tensor],
    anchors: Tensor,
    *,
    foreground_from: float,
    negatives: float,
    scales: tuple[float, float, float, float],
) -> dict[str, Tensor]:
    """Cross entropy of the classes, and smooth L1 loss of the boxes, as torchvision's SSD has them:
    each over the foreground boxes of the batch.

    `outputs` are `cls_logits` (N, A, K + 1), of which the first is the background's, and
    `bbox_regression` (N, A, 4), which is `scales` times the offsets; `anchors` (A, 4) are the
    default boxes of any picture. One is foreground where its IoU with a box reaches the bound, or
    where no other fits that box better. Of the background count those with the largest loss,
    `negatives` for each foreground one in the picture.
    """
    found = _matched(truth, anchors, partial(_match_each, foreground_from=foreground_from))
    foreground = found >= 0
    count = foreground.sum().clamp(min=1)
    labels = torch.where(foreground, _taken(truth.labels, found), 0)
    entropy = F.cross_entropy(outputs["cls_logits"].mT, labels, reduction="none")
    counts = found != UNDECIDED
    hardness = torch.where(foreground | ~counts, -torch.inf, entropy.detach())
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
    hardest = (rank < negatives * foreground.sum(dim=1, keepdim=True)) & counts

    chosen = _where(foreground)
    boxes = _taken(truth.boxes, found)[chosen]
    offsets = _encode(boxes, anchors[chosen[1]]).unbind(dim=-1)
    wanted = torch.stack([s * own for s, own in zip(scales, offsets, strict=True)], dim=-1)
    of_boxes = F.smooth_l1_loss(outputs["bbox_regression"][chosen], wanted, reduction="none")
    return {
        "bbox_regression": torch.where(foreground[chosen], of_boxes.sum(dim=-1), 0.0).sum() / count,
        "classification": (entropy * foreground + entropy * hardest).sum() / count,
    }


def _where(foreground: Tensor) -> tuple[Any, Any]:
    """An index of the foreground (N, A): on a CPU, which need not wait to know it, of it alone;
    elsewhere of everything."""
    if foreground.device.type == "cpu":
        return foreground.nonzero(as_tuple=True)  # type: ignore[return-value]
    return slice(None), slice(None)


def _matched(truth: Truth, anchors: Tensor, match: Callable[[Truth, Tensor], Tensor]) -> Tensor:
    """For each anchor of each picture (N, A) what `match` finds of as many pictures at once as
    PAIRS allows; UNDECIDED instead of background in ignored boxes, and all along where there is no
    picture."""
    count, most = truth.labels.shape
    on_cpu = anchors.device.type == "cpu"
    together = max(1, PAIRS["cpu" if on_cpu else "cuda"] // (most * len(anchors)))
    found = []
    for start in range(0, count, together):
        boxes, labels = (part[start : start + together] for part in truth[:2])
        if on_cpu:  # which need not wait to know how many there are
            filled = max(1, int(((labels > 0) | (labels == IGNORED)).sum(dim=1).max()))
            boxes, labels = boxes[:, :filled], labels[:, :filled]
        own = Truth(boxes, labels)
        if truth.ignores:
            here = match(own.only(labels > 0), anchors)
            ignored = _is_ignored(own.only(labels == IGNORED), anchors, match)
            found.append(torch.where((here == BACKGROUND) & ignored, UNDECIDED, here))
        else:
            found.append(match(own, anchors))
    is_picture = truth.labels[:, :1] != NO_PICTURE
    return torch.where(is_picture, torch.cat(found), UNDECIDED)


def _is_ignored(truth: Truth, anchors: Tensor, match: Callable[[Truth, Tensor], Tensor]) -> Tensor:
    """Whether each anchor (N, A) would be of one of these boxes, or lies in one."""
    return lie_in(truth.boxes, anchors) | (match(truth, anchors) != BACKGROUND)


def lie_in(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Whether each of the anchors (A, 4) lies in one of the boxes (..., M, 4), see INSIDE."""
    areas = area(anchors[:, 2:] - anchors[:, :2])
    return (_intersections(boxes, anchors) >= INSIDE * areas).any(dim=-2)


def _match(
    truth: Truth, anchors: Tensor, background_below: float, foreground_from: float
) -> Tensor:
    """The position of each anchor's box, or BACKGROUND or UNDECIDED."""
    overlaps, is_there = _overlaps(truth, anchors)
    best, nearest = overlaps.max(dim=1)
    found = torch.where(best < foreground_from, UNDECIDED, nearest)
    found = torch.where(best < background_below, BACKGROUND, found)
    fits_best = (overlaps == overlaps.amax(dim=2, keepdim=True)) & is_there
    return torch.where(fits_best.any(dim=1), nearest, found)


def _match_each(truth: Truth, anchors: Tensor, foreground_from: float) -> Tensor:
    """The position of each anchor's box, or BACKGROUND; each box has the anchor that fits it best,
    a later box before an earlier one."""
    overlaps, is_there = _overlaps(truth, anchors)
    best, nearest = overlaps.max(dim=1)
    found = torch.where(best < foreground_from, BACKGROUND, nearest)
    fitting = overlaps.max(dim=2).indices
    positions = torch.arange(overlaps.shape[1], device=overlaps.device)
    last = torch.full_like(found, BACKGROUND).scatter_reduce_(
        1, fitting, torch.where(is_there[..., 0], positions, BACKGROUND), "amax"
    )
    return torch.where(last >= 0, last, found)


def _match_points(
    truth: Truth, points: Tensor, sizes: tuple[Tensor, Tensor], radius: float
) -> Tensor:
    """The position of each point's box, of several the smallest, or BACKGROUND."""
    left, top, right, bottom = truth.boxes[..., None].unbind(dim=-2)
    x, y = ((points[:, :2] + points[:, 2:]) / 2).T
    off = torch.maximum((x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs())
    across, down = (x - left, right - x), (y - top, bottom - y)
    nearest = torch.minimum(torch.minimum(*across), torch.minimum(*down))
    farthest = torch.maximum(torch.maximum(*across), torch.maximum(*down))
    fits = (off < radius * (points[:, 2] - points[:, 0])) & (nearest > 0)
    fits &= (farthest > sizes[0]) & (farthest < sizes[1])
    # as torchvision has it: areas that differ by less than this has digits for are the same
    worth = torch.where(fits, 1e8 - (right - left) * (bottom - top), 0.0)
    best, found = worth.max(dim=1)
    return torch.where(best < 1e-5, BACKGROUND, found)


def _sizes_of_boxes(points: Tensor, levels: list[int]) -> tuple[Tensor, Tensor]:
    """Between which of FCOS's levels' bounds (A,), 4 and 8 times a point's size, the farthest side
    of a box must be from a point."""
    size = points[:, 2] - points[:, 0]
    least, most = size * 4, size * 8
    least[: levels[0]], most[-levels[-1] :] = 0, torch.inf
    return least, most


def _overlaps(truth: Truth, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """IoU (N, M, A) of boxes and anchors, below 0 where there is no box, and whether (N, M, 1)
    there is one."""
    is_there = (truth.labels > 0)[..., None]
    return _iou(truth.boxes, anchors).masked_fill_(~is_there, -1), is_there


def _iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """IoU (..., A) of boxes (..., 4) to the bits of torchvision's `box_iou`, which is several times
    as slow on a CPU: it takes corners in pairs."""
    both = _intersections(boxes, anchors)
    own, others = (area(corners[..., 2:] - corners[..., :2]) for corners in (boxes, anchors))
    areas: Tensor = own[..., None] + others
    return both / (areas - both)


def _intersections(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Areas (..., A) that boxes (..., 4) and anchors (A, 4) share."""
    left, top, right, bottom = boxes[..., None].unbind(dim=-2)
    x1, y1, x2, y2 = anchors.T.contiguous()
    width = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_(min=0)
    height = (torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_(min=0)
    return width.mul_(height)


def _taken(values: Tensor, found: Tensor) -> Tensor:
    """Label (N, A) or corners (N, A, 4) of each anchor's box; anything where it has none."""
    rows = torch.arange(len(found), device=found.device)[:, None]
    return values[rows, found.clamp(min=0)]


def _decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes that lie at these offsets from their anchors."""
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + size / 2 + offsets[..., :2] * size
    half = offsets[..., 2:].clamp(max=LARGEST).exp() * size / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets at which boxes lie from their anchors."""
    size, wanted = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + wanted / 2 - anchors[..., :2] - size / 2) / size
    return torch.cat([shift, (wanted / size).log()], dim=-1)


def _focal_loss(truth: Truth, found: Tensor, logits: Tensor) -> Tensor:
    """Focal loss of each anchor (N, A), with a gamma of 2; none of the undecided ones."""
    labels = torch.where(found >= 0, _taken(truth.labels, found), -1)
    loss: Tensor = FocalLoss.apply(logits, labels, found != UNDECIDED)
    return loss
