"""The terms of which losses are sums: of classes the focal loss, of boxes GIoU's."""

from typing import Any

import torch
from torch import Tensor

ALPHA = 0.25
"""Weight of a class that is there, in the focal loss; one that is absent has the rest."""
EPS = 1e-7
"""Keeps GIoU's denominators from 0, as torchvision has it."""


class FocalLoss(torch.autograd.Function):
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


def giou_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """torchvision's `generalized_box_iou_loss`, which picks out those that overlap."""
    start, end = boxes[..., :2], boxes[..., 2:]
    first, last = wanted[..., :2], wanted[..., 2:]
    both = area((torch.minimum(end, last) - torch.maximum(start, first)).clamp(min=0))
    hull = area(torch.maximum(end, last) - torch.minimum(start, first))
    union = area(end - start) + area(last - first) - both
    return 1 - both / (union + EPS) + (hull - union) / (hull + EPS)


def area(sides: Tensor) -> Tensor:
    """Of sides (..., 2)."""
    return sides[..., 0] * sides[..., 1]
