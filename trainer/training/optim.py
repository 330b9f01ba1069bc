"""The optimizer and its named parameter groups."""

from collections.abc import Iterator

import torch
from torch import nn

from ..config import Train
from ..epoch_report import GroupReport
from ..model.detectors import Detector

NO_DECAY = " no decay"
"""Suffix of the groups of norms and biases, which have no weight decay."""


def build(detector: Detector, train: Train) -> torch.optim.Optimizer:
    """An optimizer over all parameters, frozen ones included.

    The groups are `stage1`, ..., `neck` and `head`, each with a second one, `... no decay`, for
    norms and biases. An optimizer skips parameters without a gradient. So the groups stay the same
    when a stage is unfrozen or a trial resumes.
    """
    groups = [
        {"name": name, "params": parameters, "lr": 0.0}
        for name, parameters in _named_groups(detector)
        if parameters
    ]
    if train.optimizer == "sgd":
        # fused SGD is not faster on a CPU; when the fp16 scaler skips the first step, it would go
        # on from uninitialized momentum
        fused = detector.mean.is_cuda and train.precision != "fp16"
        momentum = train.momentum
        return torch.optim.SGD(
            groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=fused
        )
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def _named_groups(detector: Detector) -> Iterator[tuple[str, list[nn.Parameter]]]:
    parts = {
        f"stage{i}": [detector.backbone.get_parameter(name) for name in stage.parameters]
        for i, stage in enumerate(detector.stages, start=1)
    }
    parts["neck"] = list(detector.neck.parameters())
    parts["head"] = list(detector.head.parameters())
    for name, parameters in parts.items():
        # norms and biases are the parameters of one dimension
        yield name, [p for p in parameters if p.ndim > 1]
        yield name + NO_DECAY, [p for p in parameters if p.ndim <= 1]


def report_groups(optimizer: torch.optim.Optimizer) -> dict[str, GroupReport]:
    """The current settings of each group, by its name."""
    return {
        group["name"]: GroupReport(
            lr=float(group["lr"]),
            weight_decay=float(group["weight_decay"]),
            trainable=sum(p.numel() for p in group["params"] if p.requires_grad),
        )
        for group in optimizer.param_groups
    }
