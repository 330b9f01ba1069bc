"""RetinaNet's and FCOS's losses, of a whole batch at once.

torchvision goes picture by picture and picks out the anchors that found a box, for which a GPU's
host must wait some ten times a picture to be told how many there are. Here it waits for nothing:
all anchors take part, those that do not count without weight. The losses are the same up to
rounding; on a CPU they take less than half the time.
"""

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxLinearCoder

Targets = list[dict[str, Tensor]]
"""Of each picture `boxes` (n, 4) as x1, y1, x2, y2 and `labels` (n,)."""

BACKGROUND, UNDECIDED = -1, -2
"""Instead of a box's position, for an anchor that found none, or none clearly."""
ALPHA = 0.25
"""Weight of a class that is there, in the focal loss; one that is absent has the rest."""
EPS = 1e-7
"""Keeps GIoU's denominators from 0, as torchvision has it."""
LARGEST = log(1000 / 16)
"""Most that the logarithm of a box's size over its anchor's may be, as torchvision has it."""


def retinanet_losses(
    targets: Targets,
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
    found = torch.stack(
        [_match(own["boxes"], anchors, background_below, foreground_from) for own in targets]
    )
    foreground = found >= 0
    weight = 1 / (len(targets) * foreground.sum(dim=1, keepdim=True).clamp(min=1))
    focal = _focal_loss(targets, found, outputs["cls_logits"])

    chosen = _where(foreground)
    offsets, anchors = outputs["bbox_regression"][chosen], anchors[chosen[1]]
    boxes = _taken(targets, "boxes", found)[chosen]
    if box_loss == "giou":
        of_boxes = _giou_loss(_decode(offsets, anchors), boxes)
    else:
        of_boxes = F.l1_loss(offsets, _encode(boxes, anchors), reduction="none").sum(dim=-1)
    of_boxes = of_boxes * weight.expand_as(found)[chosen]
    return {
        "classification": (focal * weight).sum(),
        "bbox_regression": torch.where(foreground[chosen], of_boxes, 0.0).sum(),
    }


def fcos_losses(
    targets: Targets, outputs: dict[str, Tensor], anchors: list[Tensor], found: list[Tensor]
) -> dict[str, Tensor]:
    """Focal loss of the classes, GIoU loss of the boxes, and cross entropy of how central a point
    is in its box, as torchvision's FCOS has them: each over the foreground points of the batch.

    `outputs` are `cls_logits` (N, A, K), `bbox_regression` (N, A, 4) and `bbox_ctrness` (N, A, 1);
    `anchors` are a picture's points, as squares (A, 4), `found` the positions of their boxes (A,),
    negative for background.
    """
    matched = torch.stack(found)
    foreground = matched >= 0
    count = foreground.sum().clamp(min=1)
    focal = _focal_loss(targets, matched, outputs["cls_logits"])

    chosen = _where(foreground)
    counts, points = foreground[chosen], anchors[0][chosen[1]]
    boxes = _taken(targets, "boxes", matched)[chosen]
    coder = BoxLinearCoder()
    of_boxes = _giou_loss(coder.decode(outputs["bbox_regression"][chosen], points), boxes)
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


def _where(foreground: Tensor) -> tuple[Any, Any]:
    """An index of the foreground (N, A): on a CPU, which need not wait to know it, of it alone;
    elsewhere of everything."""
    if foreground.device.type == "cpu":
        return foreground.nonzero(as_tuple=True)  # type: ignore[return-value]
    return slice(None), slice(None)


def _match(
    boxes: Tensor, anchors: Tensor, background_below: float, foreground_from: float
) -> Tensor:
    """For each anchor the position of its box, or BACKGROUND or UNDECIDED."""
    if not len(boxes):
        return anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)
    overlaps = _iou(boxes, anchors)
    best, nearest = overlaps.max(dim=0)
    found = torch.where(best < foreground_from, UNDECIDED, nearest)
    found = torch.where(best < background_below, BACKGROUND, found)
    fits_best = (overlaps == overlaps.amax(dim=1, keepdim=True)).any(dim=0)
    return torch.where(fits_best, nearest, found)


def _iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """IoU (n, A) to the bits of torchvision's `box_iou`, which is several times as slow on a CPU:
    it takes corners in pairs."""
    left, top, right, bottom = boxes[..., None].unbind(dim=1)
    x1, y1, x2, y2 = anchors.T.contiguous()
    width = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_(min=0)
    height = (torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_(min=0)
    both = width.mul_(height)
    areas: Tensor = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1)
    return both / (areas - both)


def _taken(targets: Targets, name: str, found: Tensor) -> Tensor:
    """Label (N, A) or corners (N, A, 4) of each anchor's box; anything where it has none."""
    rows = []
    for target, own in zip(targets, found, strict=True):
        values = target[name]
        if not len(values):
            values = values.new_zeros(1, *values.shape[1:])
        rows.append(values[own.clamp(min=0)])
    return torch.stack(rows)


def _giou_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """torchvision's `generalized_box_iou_loss`, which picks out those that overlap."""
    start, end = boxes[..., :2], boxes[..., 2:]
    first, last = wanted[..., :2], wanted[..., 2:]
    both = _area((torch.minimum(end, last) - torch.maximum(start, first)).clamp(min=0))
    hull = _area(torch.maximum(end, last) - torch.minimum(start, first))
    union = _area(end - start) + _area(last - first) - both
    return 1 - both / (union + EPS) + (hull - union) / (hull + EPS)


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]


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


def _focal_loss(targets: Targets, found: Tensor, logits: Tensor) -> Tensor:
    """Focal loss of each anchor (N, A), with a gamma of 2; none of the undecided ones."""
    labels = torch.where(found >= 0, _taken(targets, "labels", found), -1)
    loss: Tensor = _FocalLoss.apply(logits, labels, found != UNDECIDED)
    return loss


class _FocalLoss(torch.autograd.Function):
    """torchvision's `sigmoid_focal_loss` of logits (N, A, K), summed over classes, of which at most
    one is there: with its derivative in a third of the time, and of the memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
        """`labels` (N, A) is the class that is there, or -1; `counts` (N, A) whether an anchor
        does."""
        is_there, place = (labels >= 0)[..., None], labels.clamp(min=0)[..., None]
        loss, slope = _of_absent(logits, 1 - ALPHA)
        of_there, slope_of_there = _of_absent(-logits.gather(2, place), ALPHA)
        loss.scatter_(2, place, torch.where(is_there, of_there, loss.gather(2, place)))
        slope.scatter_(2, place, torch.where(is_there, -slope_of_there, slope.gather(2, place)))
        ctx.save_for_backward(slope, counts)
        return loss.sum(dim=2) * counts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slope, counts = ctx.saved_tensors
        return slope * (gradients[0] * counts)[..., None], None, None


def _of_absent(logits: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Focal loss of absent classes, and its derivative; of one that is there both follow from the
    logit with the other sign."""
    # softplus and sigmoid; log1p, which torch's have inside, takes a CPU 6 times as long as log
    entropy = logits.abs().neg_().exp_().add_(1).log_().add_(logits.relu())
    share = (logits - entropy).exp_()
    square = share.square().mul_(weight)
    loss = square * entropy
    slope = entropy.mul_(1 - share).mul_(2).add_(share).mul_(square)
    return loss, slope
