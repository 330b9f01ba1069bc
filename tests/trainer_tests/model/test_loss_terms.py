"""Focal and GIoU loss: torchvision's values and gradients."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from trainer.model.loss_terms import FocalLoss, area, giou_loss

BACKGROUND = -1


def gradient(loss: Tensor, parameter: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(loss.sum(), [parameter])
    return slope


def test_focal_loss_is_torchvisions() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(2, 30, 5, generator=draw)).requires_grad_()
    labels = torch.randint(BACKGROUND, 5, (2, 30), generator=draw)
    is_used = torch.rand(2, 30, generator=draw) > 0.2
    loss: Tensor = FocalLoss.apply(logits, labels, is_used)
    classes = F.one_hot(labels.clamp(min=0), 5) * (labels >= 0)[..., None]
    expected = sigmoid_focal_loss(logits, classes.float()).sum(dim=-1) * is_used
    assert loss.shape == (2, 30)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        gradient(loss, logits), gradient(expected, logits), rtol=1e-4, atol=1e-6
    )


def test_focal_loss_of_extreme_logits_is_finite() -> None:
    logits = torch.tensor([[[-100.0, 100.0]]]).requires_grad_()
    for label in (BACKGROUND, 0, 1):
        loss: Tensor = FocalLoss.apply(logits, torch.tensor([[label]]), torch.tensor([[True]]))
        assert torch.isfinite(loss).all() and torch.isfinite(gradient(loss, logits)).all()


def test_giou_loss_is_torchvisions() -> None:
    draw = torch.Generator().manual_seed(0)
    corner = 50 * torch.rand(2, 40, 2, generator=draw)
    boxes = torch.cat([corner, corner + 1 + 40 * torch.rand(2, 40, 2, generator=draw)], dim=-1)
    predicted, wanted = boxes[0].requires_grad_(), boxes[1]
    loss, expected = giou_loss(predicted, wanted), generalized_box_iou_loss(predicted, wanted)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, predicted), gradient(expected, predicted))


def test_area_is_width_times_height() -> None:
    assert area(torch.tensor([[2.0, 3.0], [0.0, 5.0]])).tolist() == [6.0, 0.0]
