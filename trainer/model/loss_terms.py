"""The terms that the losses add up: focal loss of the classes, GIoU loss of the boxes."""

from typing import Any

import torch
from torch import Tensor

ALPHA = 0.25
"""Weight of an anchor's true class in the focal loss; all other classes have 1 - ALPHA."""
EPS = 1e-7
"""Keeps GIoU's denominators above 0; the same number as torchvision's."""


class FocalLoss(torch.autograd.Function):
    """The sum over classes of torchvision's `sigmoid_focal_loss`, gamma 2, with its derivative.

    Each anchor has one true class or none. This takes a third of the time and of the memory of
    torchvision's loss.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, is_used: Tensor) -> Tensor:
        """Compute the loss (N, A) of each anchor, and its derivative for `backward`.

        Args:
            ctx: Keeps tensors for `backward`.
            logits: (N, A, K).
            labels: (N, A), the true class, or -1 for background.
            is_used: (N, A), False for anchors whose loss is 0.
        """
        has_class, true_class = (labels >= 0)[..., None], labels.clamp(min=0)[..., None]
        # as if every class were false, then put the true one right
        loss, slope = _false_class_loss(logits, 1 - ALPHA)  # (N, A, K) each
        # a true class's loss is a false one's with the logit's sign changed
        true_loss, true_slope = _false_class_loss(-logits.gather(2, true_class), ALPHA)
        true_loss = torch.where(has_class, true_loss, loss.gather(2, true_class))
        true_slope = torch.where(has_class, -true_slope, slope.gather(2, true_class))
        loss.scatter_(2, true_class, true_loss)
        slope.scatter_(2, true_class, true_slope)
        ctx.save_for_backward(slope, is_used)
        return loss.sum(dim=2) * is_used

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the logits (N, A, K), given that of the losses (N, A)."""
        slope, is_used = ctx.saved_tensors
        return slope * (gradients[0] * is_used)[..., None], None, None


def _false_class_loss(logits: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Focal loss of classes that an anchor does not have, and its derivative by the logits."""
    # softplus and sigmoid; torch's versions use log1p, which takes a CPU 6 times as long as log
    entropy = logits.abs().neg_().exp_().add_(1).log_().add_(logits.relu())
    probability = (logits - entropy).exp_()
    square = probability.square().mul_(weight)
    loss = square * entropy
    slope = entropy.mul_(1 - probability).mul_(2).add_(probability).mul_(square)
    return loss, slope


def giou_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """GIoU loss (...) of predicted and wanted boxes (..., 4).

    The formula of torchvision's `generalized_box_iou_loss`, which first picks out the pairs that
    overlap.
    """
    start, end = boxes[..., :2], boxes[..., 2:]
    first, last = wanted[..., :2], wanted[..., 2:]
    intersection = area((torch.minimum(end, last) - torch.maximum(start, first)).clamp(min=0))
    hull = area(torch.maximum(end, last) - torch.minimum(start, first))
    union = area(end - start) + area(last - first) - intersection
    return 1 - intersection / (union + EPS) + (hull - union) / (hull + EPS)


def area(sides: Tensor) -> Tensor:
    """Areas (...) of rectangles, given their widths and heights (..., 2)."""
    return sides[..., 0] * sides[..., 1]
