"""The optimizer: named parameter groups, and the learning rate of each at every step."""

from collections.abc import Iterator
from math import cos, pi

import torch
from torch import nn

from ..config import Train
from ..epoch_report import GroupReport
from ..model.detectors import Detector
from ..phases import Phase

FLOOR = 0.01
"""Share of the peak learning rate at the end of a phase."""
NO_DECAY = " no decay"
"""Ends the name of a group of norms and biases."""


def build(detector: Detector, train: Train) -> torch.optim.Optimizer:
    """An optimizer over all parameters, in groups named `stage1`, ..., `neck`, `head`, each also
    as `... no decay` for norms and biases.

    Frozen parameters are in it from the start: without a gradient no optimizer touches them, and
    nothing need be regrouped when a stage opens or a trial resumes.
    """
    groups = [
        {"name": name, "params": parameters, "lr": 0.0}
        for name, parameters in _named_groups(detector)
        if parameters
    ]
    if train.optimizer == "sgd":
        # on a CPU it gains nothing; with a scaler's skipped steps (fp16) it would go on from
        # momentum that nothing was written to
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
        # norms and biases, the parameters of one dimension, are not decayed
        yield name, [p for p in parameters if p.ndim > 1]
        yield name + NO_DECAY, [p for p in parameters if p.ndim <= 1]


def set_step(
    optimizer: torch.optim.Optimizer, phase: Phase, warmup: float, step: int, steps: int
) -> None:
    """Set every group's learning rate and weight decay for a step of a phase, counted from 0.

    `steps` is an epoch's, `warmup` is in epochs. Each phase warms up anew, so that a stage that
    opens, whose moments are empty, does.
    """
    factor = lr_factor(step, phase.epochs * steps, round(warmup * steps))
    top = max((_stage(group["name"]) for group in optimizer.param_groups), default=0)
    for group in optimizer.param_groups:
        trains = any(p.requires_grad for p in group["params"])
        group["lr"] = peak(phase, group["name"], top) * factor if trains else 0.0
        group["weight_decay"] = 0.0 if group["name"].endswith(NO_DECAY) else phase.weight_decay


def peak(phase: Phase, group: str, stages: int) -> float:
    """Highest learning rate that a group of that name has in a phase; the backbone has `stages`."""
    stage = _stage(group)
    if not stage:
        return phase.lr
    return phase.lr * phase.backbone_lr_ratio * phase.stage_lr_decay ** (stages - stage)


def _stage(group: str) -> int:
    """The stage that a group belongs to, from 1 at the bottom; 0 for neck and head."""
    name = group.removesuffix(NO_DECAY)
    return int(name.removeprefix("stage")) if name.startswith("stage") else 0


def lr_factor(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, at most over half of the phase, then a cosine down to FLOOR."""
    warmup = min(warmup, total // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup - 1)
    return FLOOR + (1 - FLOOR) * (1 + cos(pi * min(1.0, progress))) / 2


def report_groups(optimizer: torch.optim.Optimizer) -> dict[str, GroupReport]:
    """The groups by name, as they stand in the optimizer."""
    return {
        group["name"]: GroupReport(
            lr=float(group["lr"]),
            weight_decay=float(group["weight_decay"]),
            trainable=sum(p.numel() for p in group["params"] if p.requires_grad),
        )
        for group in optimizer.param_groups
    }
