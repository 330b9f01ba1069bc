"""Learning rate of each parameter group at every step: warm-up, then a cosine, in each phase."""

from math import cos, pi

import torch

from ..phases import Phase
from .optim import NO_DECAY

FINAL_FRACTION = 0.01
"""Learning rate at the end of a phase, as a fraction of the peak."""


def set_step(
    optimizer: torch.optim.Optimizer, phase: Phase, warmup: float, step: int, steps: int
) -> None:
    """Set the learning rate and weight decay of every group for one step.

    Every phase starts with a warm-up: the optimizer moments of a newly unfrozen stage are empty.

    Args:
        optimizer: An optimizer of `optim.build`.
        phase: The phase that the step belongs to.
        warmup: Length of the warm-up in epochs.
        step: Number of the step in the phase, from 0.
        steps: Number of steps in an epoch.
    """
    factor = lr_factor(step, phase.epochs * steps, round(warmup * steps))
    stages = max((_stage(group["name"]) for group in optimizer.param_groups), default=0)
    for group in optimizer.param_groups:
        trains = any(p.requires_grad for p in group["params"])
        group["lr"] = peak_lr(phase, group["name"], stages) * factor if trains else 0.0
        group["weight_decay"] = 0.0 if group["name"].endswith(NO_DECAY) else phase.weight_decay


def peak_lr(phase: Phase, group: str, stages: int) -> float:
    """Highest learning rate of a group in a phase, for a backbone of that many stages."""
    stage = _stage(group)
    if not stage:
        return phase.lr
    return phase.lr * phase.backbone_lr_ratio * phase.stage_lr_decay ** (stages - stage)


def lr_factor(step: int, total: int, warmup: int) -> float:
    """Learning rate at a step, as a fraction of the peak.

    Linear warm-up over at most half of the phase, then a cosine down to FINAL_FRACTION.

    Args:
        step: Number of the step in the phase, from 0.
        total: Number of steps in the phase.
        warmup: Number of steps of the warm-up.
    """
    warmup = min(warmup, total // 2)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup - 1)
    return FINAL_FRACTION + (1 - FINAL_FRACTION) * (1 + cos(pi * min(1.0, progress))) / 2


def _stage(group: str) -> int:
    """Number of the stage that a group belongs to, from 1 at the bottom; 0 for neck and head."""
    name = group.removesuffix(NO_DECAY)
    return int(name.removeprefix("stage")) if name.startswith("stage") else 0
