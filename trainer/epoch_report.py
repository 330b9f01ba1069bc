"""The report of an epoch: metrics, losses, learning rates and timings."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class GroupReport:
    """Settings of one parameter group at the end of an epoch."""

    lr: float
    """Learning rate; 0 if the group is frozen."""
    weight_decay: float
    """Weight decay."""
    trainable: int
    """Number of trainable parameters."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """Everything about one epoch. Every number is finite."""

    epoch: int
    """Number of the epoch in the trial, from 1."""
    phase: str
    """`head` or `unfreeze`."""
    depth: int
    """Number of backbone stages that train, counted from the head end."""
    unfreeze_epoch: int
    """Number of the epoch after the head phase, from 1; 0 in the head phase."""
    map: float
    """AP on val, mean over IoU .50 to .95."""
    map_50: float
    """AP on val at IoU .50."""
    map_75: float
    """AP on val at IoU .75."""
    best_map: float
    """Highest `map` so far."""
    losses: dict[str, float]
    """Mean of each loss over the epoch."""
    groups: dict[str, GroupReport]
    """Settings of each parameter group, by its name."""
    seconds: float
    """Duration of training and evaluation."""
    images_per_second: float
    """Pictures trained on per second, without evaluation."""
    forked: bool
    """Whether the epoch comes from another trial's checkpoint and was not run."""
    images_from_cache: int = 0
    """Pictures of train and val whose frozen features came from the cache on disk."""
    skipped: int = 0
    """Steps that were skipped because their fp16 gradient was infinite."""
    environment: dict[str, str] = field(default_factory=dict)
    """Hardware, threads and code, see `training.environment`; empty in older studies."""
    system: dict[str, float] = field(default_factory=dict)
    """CPU and memory use of the process, see `training.usage`; empty in older studies."""


FORMER_NAMES = {"read": "images_from_cache"}
"""Fields that studies and checkpoints of earlier versions store under another name."""


def read_report(raw: dict[str, Any]) -> EpochReport:
    """An EpochReport from its plain values, of this version or an earlier one."""
    values = {FORMER_NAMES.get(name, name): value for name, value in raw.items()}
    values["groups"] = {name: GroupReport(**group) for name, group in raw["groups"].items()}
    return EpochReport(**values)
