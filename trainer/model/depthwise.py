"""Depthwise convolutions whose bf16 gradients a CPU is slow at: they train in fp32.

oneDNN takes 3 to 6 times as long for the weights' gradient of a 5x5 kernel in bf16 as in fp32, and
20 times for the input's gradient of a stride of 2; for the rest bf16 is the faster. A step of lite0
with three open stages takes 0.63 of the time so.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def train_in_fp32(detector: nn.Module) -> None:
    """Let the slow ones among a detector's convolutions compute in fp32 where they are trained in
    bf16 on a CPU; nothing else changes."""
    for module in detector.modules():
        if isinstance(module, nn.Conv2d) and _is_slow(module):
            module.forward = partial(_forward, module, module.forward)  # type: ignore[method-assign]


def _is_slow(module: nn.Conv2d) -> bool:
    depthwise = 1 < module.groups == module.in_channels
    return depthwise and (max(module.kernel_size) > 3 or max(module.stride) > 1)


def _forward(module: nn.Conv2d, plain: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    trains = module.weight.requires_grad and torch.is_grad_enabled()
    if not trains or features.dtype is not torch.bfloat16 or features.device.type != "cpu":
        return plain(features)
    with torch.autocast("cpu", enabled=False):
        return plain(features.float()).to(features.dtype)
