"""Depthwise convolutions: in fp32 where they train in bf16 on a CPU, else as they are."""

import copy

import pytest
import torch
from torch import Tensor, nn

from trainer.model.depthwise import train_in_fp32


def slow() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 8, 5, padding=2, groups=8)


def step(conv: nn.Conv2d, features: Tensor, precision: bool = True) -> tuple[Tensor, Tensor]:
    """What comes out, and the gradient of the weights."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision):
        out = conv(features)
    (grad,) = torch.autograd.grad(out.float().square().sum(), [conv.weight])
    return out, grad


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))


def test_gradients_are_those_of_fp32(features: Tensor) -> None:
    conv = slow()
    rounded = features.bfloat16()
    out, grad = step(conv, rounded.float(), precision=False)
    train_in_fp32(conv)
    own, found = step(conv, rounded)
    assert own.dtype is torch.bfloat16
    assert torch.equal(own, out.bfloat16())
    assert torch.allclose(found, grad, rtol=1e-2, atol=1e-2 * float(grad.abs().max()))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3, groups=8),  # fast as it is
        nn.Conv2d(8, 8, 5, groups=2),
        nn.Conv2d(8, 8, 5),
        nn.Conv2d(1, 8, 5),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    train_in_fp32(conv)
    assert "forward" not in vars(conv)


def test_a_stride_makes_a_small_kernel_slow() -> None:
    conv = nn.Conv2d(8, 8, 3, stride=2, groups=8)
    train_in_fp32(conv)
    assert "forward" in vars(conv)


def test_what_does_not_train_or_is_fp32_keeps_its_bits(features: Tensor) -> None:
    plain, conv = slow(), slow()
    train_in_fp32(conv)
    assert torch.equal(step(conv, features, False)[1], step(plain, features, False)[1])
    for module in (plain, conv):
        module.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(features.bfloat16()), plain(features.bfloat16()))


def test_a_copy_has_weights_of_its_own(features: Tensor) -> None:
    conv = slow()
    train_in_fp32(conv)
    other = copy.deepcopy(conv)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()  # type: ignore[union-attr]
    assert not step(other, features.bfloat16())[0].any()
    assert step(conv, features.bfloat16())[0].any()
