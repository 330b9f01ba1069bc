"""What a CPU is slow at in bf16, or gets wrong, computed in another way.

Figures are of torch 2.14.1 on a core with AVX512-bf16. A step of lite0 with everything unfrozen
takes 0.8 of the time so, in the head phase 0.9 (`benchmarks/step.py` on either side, in turns).

Slow: of a depthwise convolution the weights' gradient takes oneDNN 7 to 100 times as long for a
kernel of 5x5 or 7x7 as for one of 3x3, of which the larger is put together; the input's gradient
20 times as long for a stride of 2 as in fp32. GroupNorm takes 2 to 3 times as long as in fp32.

Wrong: on a map smaller than a convolution's stride or padding (the pyramid's last level on a canvas
of 64 px) both gradients hold numbers of any size, 28 of 30 times: these are computed in fp32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F

Plain = Callable[[Tensor], Tensor]


def work_around(detector: nn.Module) -> None:
    """Let a detector's modules do all this where they are trained in bf16 on a CPU; nothing else
    changes."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d) and (_is_slow(module) or _reach(module) > 1):
            module.forward = partial(_convolve, module, module.forward)  # type: ignore[method-assign]
        elif isinstance(module, nn.GroupNorm):
            module.forward = partial(_normalize, module.forward)  # type: ignore[method-assign]


def _is_slow(module: nn.Conv2d) -> bool:
    depthwise = 1 < module.groups == module.in_channels == module.out_channels
    usual = module.padding_mode == "zeros" and set(module.dilation) == {1}
    if not (depthwise and usual and type(module) in (nn.Conv2d, Conv2dSame)):
        return False
    square = len(set(module.kernel_size)) == 1 and not isinstance(module.padding, str)
    return square and (module.kernel_size[0] > 3 or max(module.stride) > 1)


def _reach(module: nn.Conv2d) -> int:
    """The size that a map must have for its gradients to be right."""
    padding = () if isinstance(module.padding, str) else module.padding
    return max(*module.stride, *padding) if max(module.kernel_size) > 1 else 1


def _trains_in_bf16(features: Tensor) -> bool:
    if features.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    is_mixed = torch.is_autocast_enabled("cpu")  # else the weights would be bf16 too
    return is_mixed and torch.get_autocast_dtype("cpu") is torch.bfloat16


def convolve(
    module: nn.Conv2d | Conv2dSame,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plain: Plain | None = None,
) -> Tensor:
    """What a convolution gives with these weights and bias; `plain` is how it does otherwise."""
    given = plain or partial(_plain, module, weight, bias)
    trained = weight.requires_grad or features.requires_grad
    if not (trained and _trains_in_bf16(features)):
        return given(features)
    if min(features.shape[-2:]) < _reach(module):
        with torch.autocast("cpu", enabled=False):
            exact = plain or partial(
                _plain, module, weight.float(), bias if bias is None else bias.float()
            )
            return exact(features.float()).to(torch.bfloat16)
    if not _is_slow(module):
        return given(features)
    if isinstance(module, Conv2dSame):
        features = pad_same(features, list(module.kernel_size), list(module.stride))
    with torch.autocast("cpu", enabled=False):
        bf16 = partial(Tensor.to, dtype=torch.bfloat16)
        outcome: Tensor = _Depthwise.apply(
            bf16(features),
            bf16(weight),
            None if bias is None else bf16(bias),
            list(module.stride),
            list(module.padding),
        )
        return outcome


def _plain(module: nn.Conv2d, weight: Tensor, bias: Tensor | None, features: Tensor) -> Tensor:
    if isinstance(module, Conv2dSame):
        features = pad_same(
            features, list(module.kernel_size), list(module.stride), list(module.dilation)
        )
    found: Tensor = module._conv_forward(features, weight, bias)
    return found


def _convolve(module: nn.Conv2d, plain: Plain, features: Tensor) -> Tensor:
    return convolve(module, features, module.weight, module.bias, plain)


def _normalize(plain: Plain, features: Tensor) -> Tensor:
    if not _trains_in_bf16(features):
        return plain(features)
    return plain(features.float()).to(torch.bfloat16)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of bf16 (N, C, H, W) with square kernels (C, 1, k, k)."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(features, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts = (gradients[0], *ctx.saved_tensors, ctx.stride, ctx.padding)
        of_features, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _of_features(*parts) if of_features else None,
            _of_weight(*parts) if of_weight else None,
            gradients[0].sum(dim=(0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def _of_features(
    gradient: Tensor, features: Tensor, weight: Tensor, stride: list[int], padding: list[int]
) -> Tensor:
    if max(stride) == 1:
        return _backward(gradient, features, weight, stride, padding, 0)
    shape_only = torch.empty_like(features, dtype=torch.float32)
    found = _backward(gradient.float(), shape_only, weight.float(), stride, padding, 0)
    return found.to(features.dtype)


def _of_weight(
    gradient: Tensor, features: Tensor, weight: Tensor, stride: list[int], padding: list[int]
) -> Tensor:
    size = weight.shape[-1]
    if size <= 3:
        return _backward(gradient, features, weight, stride, padding, 1)
    features = F.pad(features, [padding[1], padding[1], padding[0], padding[0]])
    # how far the first taps of a piece reach over the map, and its two others
    height, width = (s * (n - 1) + 3 for s, n in zip(stride, gradient.shape[-2:], strict=True))
    found = torch.empty_like(weight)
    starts = sorted({*range(0, size - 2, 3), size - 3})  # the last two may overlap
    for y in starts:
        for x in starts:
            seen = features[:, :, y : y + height, x : x + width]
            piece = weight[:, :, y : y + 3, x : x + 3]
            found[:, :, y : y + 3, x : x + 3] = _backward(gradient, seen, piece, stride, [0, 0], 1)
    return found


def _backward(
    gradient: Tensor,
    features: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    which: int,
) -> Tensor:
    """The gradient of the features (0) or of the weights (1)."""
    steps = (stride, padding, [1, 1], False, [0, 0], len(weight))  # and no dilation, not transposed
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, features, weight, None, *steps, [which == 0, which == 1, False]
    )[which]
    return found
