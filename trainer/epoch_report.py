"""What a trial says of each of its epochs."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class GroupReport:
    """What one parameter group really trained with, at the end of an epoch."""

    lr: float
    weight_decay: float
    trainable: int
    """Number of parameters that train."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one epoch did; every number is finite."""

    epoch: int
    """Counted across phases, from 1."""
    phase: str
    depth: int
    unfreeze_epoch: int
    """Epochs after the head phase, from 1; 0 within it."""
    map: float
    """AP on val, IoU .50 to .95."""
    map_50: float
    map_75: float
    best_map: float
    """The best `map` so far."""
    losses: dict[str, float]
    """Mean over the epoch."""
    groups: dict[str, GroupReport]
    seconds: float
    """Of training and evaluation."""
    images_per_second: float
    """Of training."""
    forked: bool
    """Whether the epoch was taken over from another trial instead of run."""
    read: int = 0
    """Pictures of train and val whose frozen stages were read from files instead of run."""
    skipped: int = 0
    """Steps that were not taken, since in fp16 their gradient was infinite."""
    environment: dict[str, str] = field(default_factory=dict)
    """Where it ran, see `phase_cache.environment`; empty in older studies."""
    system: dict[str, float] = field(default_factory=dict)
    """What its process took of its machine, see `training.usage`; empty in older studies."""


def read_report(raw: dict[str, Any]) -> EpochReport:
    """An EpochReport from its plain values."""
    groups = {name: GroupReport(**group) for name, group in raw["groups"].items()}
    return EpochReport(**{**raw, "groups": groups})
