"""Convolutions whose bf16 gradients a CPU is slow at, or wrong: they train in fp32.

Slow: for depthwise ones oneDNN takes 3 to 6 times as long for the weights' gradient of a 5x5 kernel
in bf16 as in fp32, and 20 times for the input's gradient of a stride of 2; for the rest bf16 is the
faster. A step of lite0 with three open stages takes 0.63 of the time so.

Wrong: on a map smaller than the stride or the padding (the pyramid's last level on a canvas of
64 px) both gradients hold numbers of any size: 28 of 30 times with torch 2.14.1.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def train_in_fp32(detector: nn.Module) -> None:
    """Let these among a detector's convolutions compute in fp32 where they are trained in bf16 on a
    CPU; nothing else changes."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d) and (_is_slow(module) or _reach(module) > 1):
            module.forward = partial(_forward, module, module.forward)  # type: ignore[method-assign]


def _is_slow(module: nn.Conv2d) -> bool:
    depthwise = 1 < module.groups == module.in_channels
    return depthwise and (max(module.kernel_size) > 3 or max(module.stride) > 1)


def _reach(module: nn.Conv2d) -> int:
    """The size that a map must have for its gradients to be right."""
    padding = () if isinstance(module.padding, str) else module.padding
    return max(*module.stride, *padding) if max(module.kernel_size) > 1 else 1


def _forward(module: nn.Conv2d, plain: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    if features.device.type != "cpu" or not torch.is_grad_enabled():
        return plain(features)
    is_bf16 = features.dtype is torch.bfloat16
    slow = is_bf16 and module.weight.requires_grad and _is_slow(module)
    autocast = torch.is_autocast_enabled("cpu")
    wrong = (
        (torch.get_autocast_dtype("cpu") is torch.bfloat16 if autocast else is_bf16)
        and (module.weight.requires_grad or features.requires_grad)
        and min(features.shape[-2:]) < _reach(module)
    )
    if not slow and not wrong:
        return plain(features)
    with torch.autocast("cpu", enabled=False):
        return plain(features.float()).to(torch.bfloat16)
