"""Layers patched for bf16 training on a CPU are fast and right there, and unchanged elsewhere."""

import copy
from typing import Any

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from trainer.model.acceleration import cpu_bf16
from trainer.model.acceleration.cpu_bf16 import patch_for_cpu_bf16


def slow() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(8, 8, 5, padding=2, groups=8)


def step(conv: nn.Conv2d, features: Tensor, precision: bool = True) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of the weights."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision):
        out = conv(features)
    (grad,) = torch.autograd.grad(out.float().square().sum(), [conv.weight])
    return out, grad


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 8, 12, 12, generator=torch.Generator().manual_seed(0))


DEPTHWISE = [
    nn.Conv2d(8, 8, 5, padding=2, groups=8),
    nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=False),
    nn.Conv2d(8, 8, 9, padding=(4, 2), groups=8),
    nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
    nn.Conv2d(8, 8, 5, stride=(2, 1), groups=8),
    Conv2dSame(8, 8, 3, stride=2, groups=8),
    Conv2dSame(8, 8, 5, stride=2, groups=8, bias=False),
]


@pytest.mark.parametrize("conv", DEPTHWISE, ids=str)
@pytest.mark.parametrize("size", [(12, 12), (15, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_fp32(
    conv: nn.Conv2d, size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    weight_gradient = cpu_bf16._weight_gradient

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        return weight_gradient(*args)

    monkeypatch.setattr(cpu_bf16, "_weight_gradient", counted)
    torch.manual_seed(0)
    conv = copy.deepcopy(conv).to(memory_format=torch.channels_last)
    features = torch.randn(2, 8, *size).bfloat16().to(dtype).requires_grad_()
    exact = everything(conv, features.float(), precision=False)
    plain = everything(conv, features)
    patch_for_cpu_bf16(conv)
    assert "forward" in vars(conv)
    results = everything(conv, features)
    assert calls == [1]
    assert results[0].dtype is torch.bfloat16
    for result, usual, right in zip(results, plain, exact, strict=True):
        assert result.shape == right.shape
        largest = float(right.abs().max())
        # where a CPU has no bf16 in hardware, PyTorch's kernels round more
        usual_error = float((usual.float() - right).abs().max())
        assert usual_error < 0.1 * largest
        atol = max(1e-2 * largest, 1.5 * usual_error)
        assert torch.allclose(result.float(), right, rtol=2e-2, atol=atol)


def everything(conv: nn.Conv2d, features: Tensor, precision: bool = True) -> tuple[Tensor, ...]:
    """The output, and the gradients of the input and of all parameters."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision):
        out = conv(features)
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return out.detach(), *torch.autograd.grad(
        (out.float() * weights).sum(), [features, *conv.parameters()]
    )


def test_a_group_norm_is_that_of_fp32() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 8)
    features = torch.randn(2, 8, 5, 5).bfloat16().requires_grad_()
    expected = everything(norm, features.float(), precision=False)  # type: ignore[arg-type]
    seen: list[torch.dtype] = []
    plain = norm.forward

    def watched(input: Tensor) -> Tensor:
        seen.append(input.dtype)
        return plain(input)

    norm.forward = watched  # type: ignore[method-assign]
    patch_for_cpu_bf16(norm)
    results = everything(norm, features)  # type: ignore[arg-type]
    assert seen == [torch.float32]
    assert results[0].dtype is torch.bfloat16
    assert torch.equal(results[0], expected[0].bfloat16())
    for result, right in zip(results, expected, strict=True):
        atol = 1e-2 * float(right.abs().max())
        assert torch.allclose(result.float(), right, rtol=2e-2, atol=atol)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert norm(features).dtype is torch.bfloat16


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
def test_other_convolutions_stay_as_they_are(conv: nn.Conv2d) -> None:
    patch_for_cpu_bf16(conv)
    assert "forward" not in vars(conv)


def test_a_stride_makes_a_small_kernel_slow() -> None:
    conv = nn.Conv2d(8, 8, 3, stride=2, groups=8)
    patch_for_cpu_bf16(conv)
    assert "forward" in vars(conv)


def test_what_does_not_train_or_is_fp32_keeps_its_bits(features: Tensor) -> None:
    plain, conv = slow(), slow()
    patch_for_cpu_bf16(conv)
    assert torch.equal(step(conv, features, False)[1], step(plain, features, False)[1])
    for module in (plain, conv):
        module.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(features.bfloat16()), plain(features.bfloat16()))


def test_a_copy_uses_its_copied_weights(features: Tensor) -> None:
    conv = slow()
    patch_for_cpu_bf16(conv)
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
def test_gradients_on_the_smallest_maps_are_those_of_fp32(
    size: tuple[int, int], kernel: int, stride: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 32, kernel, stride, kernel // 2).to(memory_format=torch.channels_last)
    features = torch.randn(4, 32, *size).bfloat16().to(dtype).requires_grad_()
    expected = both(conv, features.float(), precision=False)
    patch_for_cpu_bf16(conv)
    for _ in range(5):  # unpatched, they are arbitrary most of the time, but not always
        for gradient, right in zip(both(conv, features), expected, strict=True):
            assert torch.allclose(
                gradient.float(), right, rtol=2e-2, atol=2e-2 * float(right.abs().max())
            )


def both(conv: nn.Conv2d, features: Tensor, precision: bool = True) -> tuple[Tensor, ...]:
    """The gradients of the weights and of the input."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision):
        out = conv(features)
    return torch.autograd.grad(out.float().sum(), [conv.weight, features])


def test_gradients_on_larger_maps_keep_their_bits() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 4, 4).requires_grad_()
    plain = nn.Conv2d(8, 8, 3, 2, 1)
    conv = copy.deepcopy(plain)
    patch_for_cpu_bf16(conv)
    assert "forward" in vars(conv)
    for gradient, expected in zip(both(conv, features), both(plain, features), strict=True):
        assert torch.equal(gradient, expected)
