"""Faster and correct bf16 training on a CPU, for the layers that oneDNN is slow or wrong at.

Figures are of torch 2.14.1 on a core with AVX512-bf16. With this a step of lite0 takes 0.8 of the
time with everything unfrozen, and 0.9 in the head phase (`benchmarks/step.py` with and without, in
alternation).

Slow:

- The weight gradient of a depthwise convolution with a kernel of 5x5 or 7x7 takes 7 to 100 times
  as long as with 3x3. It is put together from pieces of 3x3.
- The input gradient of a depthwise convolution with a stride of 2 takes 20 times as long as in
  fp32. It is computed in fp32.
- GroupNorm takes 2 to 3 times as long as in fp32. It is computed in fp32.

Wrong: on a map smaller than a convolution's stride or padding, such as the pyramid's last level on
a canvas of 64 px, both gradients hold arbitrary numbers (28 of 30 times). They are computed in
fp32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F

Forward = Callable[[Tensor], Tensor]
"""A module's `forward` before it was replaced."""


def patch_for_cpu_bf16(detector: nn.Module) -> None:
    """Replace the forward of these layers; it differs only where they train in bf16 on a CPU."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d) and (_is_slow(module) or _smallest_map(module) > 1):
            module.forward = partial(_convolve, module, module.forward)  # type: ignore[method-assign]
        elif isinstance(module, nn.GroupNorm):
            module.forward = partial(_normalize, module.forward)  # type: ignore[method-assign]


def _is_slow(module: nn.Conv2d) -> bool:
    """Whether a convolution is one of the slow ones: depthwise, with a large kernel or a stride."""
    depthwise = 1 < module.groups == module.in_channels == module.out_channels
    usual = module.padding_mode == "zeros" and set(module.dilation) == {1}
    if not (depthwise and usual and type(module) in (nn.Conv2d, Conv2dSame)):
        return False
    square = len(set(module.kernel_size)) == 1 and not isinstance(module.padding, str)
    return square and (module.kernel_size[0] > 3 or max(module.stride) > 1)


def _smallest_map(module: nn.Conv2d) -> int:
    """Height and width from which on a convolution's bf16 gradients are right."""
    padding = () if isinstance(module.padding, str) else module.padding
    return max(*module.stride, *padding) if max(module.kernel_size) > 1 else 1


def _trains_in_bf16(features: Tensor) -> bool:
    """Whether this is a forward pass of training on a CPU with fp32 weights and bf16 autocast."""
    if features.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    enabled = torch.is_autocast_enabled("cpu")
    return enabled and torch.get_autocast_dtype("cpu") is torch.bfloat16


def convolve(
    module: nn.Conv2d | Conv2dSame,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    forward: Forward | None = None,
) -> Tensor:
    """Run a convolution with given weights, fast and right in bf16 on a CPU.

    Args:
        module: The convolution.
        features: Its input (N, C, H, W).
        weight: Weights in place of the module's, of the same shape.
        bias: Bias (C,) in place of the module's.
        forward: The module's forward, to call where nothing has to be done differently; by default
            what a convolution with these weights does.
    """
    usual = forward or partial(_forward, module, weight, bias)
    trains = weight.requires_grad or features.requires_grad
    if not (trains and _trains_in_bf16(features)):
        return usual(features)
    if min(features.shape[-2:]) < _smallest_map(module):
        with torch.autocast("cpu", enabled=False):
            fp32_bias = bias if bias is None else bias.float()
            exact = forward or partial(_forward, module, weight.float(), fp32_bias)
            return exact(features.float()).to(torch.bfloat16)
    if not _is_slow(module):
        return usual(features)
    if isinstance(module, Conv2dSame):
        features = pad_same(features, list(module.kernel_size), list(module.stride))
    with torch.autocast("cpu", enabled=False):
        bf16 = partial(Tensor.to, dtype=torch.bfloat16)
        output: Tensor = _DepthwiseConv.apply(
            bf16(features),
            bf16(weight),
            None if bias is None else bf16(bias),
            list(module.stride),
            list(module.padding),
        )
        return output


def _forward(module: nn.Conv2d, weight: Tensor, bias: Tensor | None, features: Tensor) -> Tensor:
    """What a convolution does with these weights."""
    if isinstance(module, Conv2dSame):
        features = pad_same(
            features, list(module.kernel_size), list(module.stride), list(module.dilation)
        )
    output: Tensor = module._conv_forward(features, weight, bias)
    return output


def _convolve(module: nn.Conv2d, forward: Forward, features: Tensor) -> Tensor:
    return convolve(module, features, module.weight, module.bias, forward)


def _normalize(forward: Forward, features: Tensor) -> Tensor:
    if not _trains_in_bf16(features):
        return forward(features)
    return forward(features.float()).to(torch.bfloat16)


class _DepthwiseConv(torch.autograd.Function):
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
        inputs = (gradients[0], *ctx.saved_tensors, ctx.stride, ctx.padding)
        needs_features, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        return (
            _input_gradient(*inputs) if needs_features else None,
            _weight_gradient(*inputs) if needs_weight else None,
            gradients[0].sum(dim=(0, 2, 3)) if needs_bias else None,
            None,
            None,
        )


def _input_gradient(
    gradient: Tensor, features: Tensor, weight: Tensor, stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient (N, C, H, W) of the input; in fp32 where there is a stride."""
    if max(stride) == 1:
        return _convolution_backward(gradient, features, weight, stride, padding, 0)
    shape_only = torch.empty_like(features, dtype=torch.float32)
    result = _convolution_backward(gradient.float(), shape_only, weight.float(), stride, padding, 0)
    return result.to(features.dtype)


def _weight_gradient(
    gradient: Tensor, features: Tensor, weight: Tensor, stride: list[int], padding: list[int]
) -> Tensor:
    """Gradient (C, 1, k, k) of the weights; of a large kernel in pieces of 3x3."""
    size = weight.shape[-1]
    if size <= 3:
        return _convolution_backward(gradient, features, weight, stride, padding, 1)
    features = F.pad(features, [padding[1], padding[1], padding[0], padding[0]])
    # the part of the map that a 3x3 piece of the kernel sees
    height, width = (s * (n - 1) + 3 for s, n in zip(stride, gradient.shape[-2:], strict=True))
    result = torch.empty_like(weight)
    starts = sorted({*range(0, size - 2, 3), size - 3})  # the last two may overlap
    for y in starts:
        for x in starts:
            seen = features[:, :, y : y + height, x : x + width]
            piece = weight[:, :, y : y + 3, x : x + 3]
            result[:, :, y : y + 3, x : x + 3] = _convolution_backward(
                gradient, seen, piece, stride, [0, 0], 1
            )
    return result


def _convolution_backward(
    gradient: Tensor,
    features: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    which: int,
) -> Tensor:
    """The gradient of the features (`which` 0) or of the weights (1)."""
    dilation, transposed, output_padding = [1, 1], False, [0, 0]
    settings = (stride, padding, dilation, transposed, output_padding, len(weight))
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, features, weight, None, *settings, [which == 0, which == 1, False]
    )[which]
    return result
