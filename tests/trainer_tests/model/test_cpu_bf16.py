"""Convolutions that train in fp32 where the rest trains in bf16 on a CPU, else as they are."""

import copy

import pytest
import torch
from torch import Tensor, nn

from trainer.model.cpu_bf16 import train_in_fp32


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
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # fast as it is
        nn.Conv2d(8, 8, 5, groups=2),
        nn.Conv2d(8, 8, 1, stride=2),
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


# -- wrong gradients ------------------------------------------------------------------------------

SMALL = [  # size of the map, kernel, stride
    ((1, 1), 3, 2),  # what makes the pyramid's last level on a canvas of 64 px
    ((4, 1), 3, 2),
    ((1, 1), 5, 1),
    ((2, 2), 7, 1),
    ((2, 2), 5, 3),
]


@pytest.mark.parametrize(("size", "kernel", "stride"), SMALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_the_smallest_maps_gradients_are_those_of_fp32(
    size: tuple[int, int], kernel: int, stride: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, kernel, stride, kernel // 2).to(memory_format=torch.channels_last)
    features = torch.randn(4, 32, *size).bfloat16().to(dtype).requires_grad_()
    wanted = both(conv, features.float(), precision=False)
    train_in_fp32(conv)
    for _ in range(5):  # without it, of any size most of the time, and not always
        for own, right in zip(both(conv, features), wanted, strict=True):
            assert torch.allclose(
                own.float(), right, rtol=2e-2, atol=2e-2 * float(right.abs().max())
            )


def both(conv: nn.Conv2d, features: Tensor, precision: bool = True) -> tuple[Tensor, ...]:
    """The gradients of the weights and of what came in."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision):
        out = conv(features)
    return torch.autograd.grad(out.float().sum(), [conv.weight, features])


def test_on_larger_maps_a_stride_keeps_its_bits() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 4, 4).requires_grad_()
    plain = nn.Conv2d(8, 8, 3, 2, 1)
    conv = copy.deepcopy(plain)
    train_in_fp32(conv)
    assert "forward" in vars(conv)
    for own, wanted in zip(both(conv, features), both(plain, features), strict=True):
        assert torch.equal(own, wanted)
