"""Modules that train in a better way where a CPU trains in bf16, and are else as they are."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from trainer.model.acceleration import cpu_bf16
from trainer.model.acceleration.cpu_bf16 import work_around


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
    ours: list[int] = []
    of_weight = cpu_bf16._of_weight
    monkeypatch.setattr(cpu_bf16, "_of_weight", lambda *a: (ours.append(1), of_weight(*a))[1])
    torch.manual_seed(0)
    conv = copy.deepcopy(conv).to(memory_format=torch.channels_last)
    features = torch.randn(2, 8, *size).bfloat16().to(dtype).requires_grad_()
    exact = everything(conv, features.float(), precision=False)
    plain = everything(conv, features)
    work_around(conv)
    assert "forward" in vars(conv)
    results = everything(conv, features)
    assert ours == [1]
    assert results[0].dtype is torch.bfloat16
    for result, usual, right in zip(results, plain, exact, strict=True):
        assert result.shape == right.shape
        largest = float(right.abs().max())
        # where a CPU has no bf16 in hardware, PyTorch's own kernels round more
        usual_error = float((usual.float() - right).abs().max())
        assert usual_error < 0.1 * largest
        tolerance = {"rtol": 2e-2, "atol": max(1e-2 * largest, 1.5 * usual_error)}
        assert torch.allclose(result.float(), right, **tolerance)


def everything(conv: nn.Conv2d, features: Tensor, precision: bool = True) -> tuple[Tensor, ...]:
    """What comes out, and the gradients of what came in and of all parameters."""
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
    wanted = everything(norm, features.float(), precision=False)  # type: ignore[arg-type]
    seen: list[torch.dtype] = []
    plain = norm.forward
    norm.forward = lambda x: (seen.append(x.dtype), plain(x))[1]  # type: ignore[method-assign]
    work_around(norm)
    own = everything(norm, features)  # type: ignore[arg-type]
    assert seen == [torch.float32]
    assert own[0].dtype is torch.bfloat16
    assert torch.equal(own[0], wanted[0].bfloat16())
    for found, right in zip(own, wanted, strict=True):
        close = {"rtol": 2e-2, "atol": 1e-2 * float(right.abs().max())}
        assert torch.allclose(found.float(), right, **close)
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
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    work_around(conv)
    assert "forward" not in vars(conv)


def test_a_stride_makes_a_small_kernel_slow() -> None:
    conv = nn.Conv2d(8, 8, 3, stride=2, groups=8)
    work_around(conv)
    assert "forward" in vars(conv)


def test_what_does_not_train_or_is_fp32_keeps_its_bits(features: Tensor) -> None:
    plain, conv = slow(), slow()
    work_around(conv)
    assert torch.equal(step(conv, features, False)[1], step(plain, features, False)[1])
    for module in (plain, conv):
        module.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(features.bfloat16()), plain(features.bfloat16()))


def test_a_copy_has_weights_of_its_own(features: Tensor) -> None:
    conv = slow()
    work_around(conv)
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
    work_around(conv)
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
    work_around(conv)
    assert "forward" in vars(conv)
    for own, wanted in zip(both(conv, features), both(plain, features), strict=True):
        assert torch.equal(own, wanted)
