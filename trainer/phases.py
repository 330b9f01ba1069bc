"""The plan of a trial: its phases, and with them which stages train in each epoch."""

from dataclasses import dataclass
from itertools import groupby
from math import ceil

from .config import Depth, InputError, Train


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A run of epochs with one freeze state and one learning-rate schedule."""

    name: str
    """`head` or `unfreeze`."""
    first_epoch: int
    """First epoch of the phase, counted from 0 at the start of the trial."""
    epochs: int
    """Number of epochs."""
    depth: int
    """Number of backbone stages that train, counted from the head end."""
    batch_size: int
    """Pictures a step."""
    lr: float
    """Peak learning rate of neck and head."""
    backbone_lr_ratio: float
    """Learning rate of the top backbone stage, as a fraction of `lr`."""
    weight_decay: float
    """Weight decay of everything but norms and biases."""
    stage_lr_decay: float = 1.0
    """Learning rate of each lower unfrozen stage, as a fraction of that of the stage above it."""
    drop_path: float = 0.0
    """Stochastic depth of the unfrozen stages, see `freezing.set_depth`."""
    adapt_statistics: bool = False
    """Whether the BatchNorm statistics of the unfrozen stages follow the batches."""
    caches_features: bool = False
    """Whether the features of the frozen stages are cached on disk, see `train.trunk_cache`."""
    ema: float = 0.0
    """Decay a step of the average of the weights, see `train.ema`; 0 for no average."""

    @property
    def end(self) -> int:
        """The epoch after the last one, counted from 0."""
        return self.first_epoch + self.epochs


def plan(train: Train, stages: int) -> list[Phase]:
    """The phases of a trial, in order.

    Args:
        train: The training settings.
        stages: Number of stages of the backbone.

    Raises:
        InputError: If the backbone has fewer stages than `train.unfreeze.depth`.
    """
    depth = resolve_depth(train.unfreeze.depth, stages)
    phases = [_head_phase(train, stages)] if train.head.epochs else []
    start = train.head.epochs
    for phase_depth, epochs in groupby(_depths(train, depth)):
        phase = _unfreeze_phase(train, stages, start, len(list(epochs)), phase_depth)
        phases.append(phase)
        start = phase.end
    return phases


def resolve_depth(depth: Depth, stages: int) -> int:
    """The depth as a number, `all` included.

    Raises:
        InputError: If the backbone has fewer stages.
    """
    if depth == "all":
        return stages
    if not 0 <= depth <= stages:
        raise InputError([f"train.unfreeze.depth: {depth} (legal: 0 to {stages}, or all)"])
    return depth


def _head_phase(train: Train, stages: int) -> Phase:
    head = train.head
    return Phase(
        name="head",
        first_epoch=0,
        epochs=head.epochs,
        depth=0,
        batch_size=head.batch_size,
        lr=head.lr,
        backbone_lr_ratio=0.0,
        weight_decay=head.weight_decay,
        caches_features=_caches_features(train, 0, stages),
    )


def _unfreeze_phase(train: Train, stages: int, start: int, epochs: int, depth: int) -> Phase:
    unfreeze = train.unfreeze
    return Phase(
        name="unfreeze",
        first_epoch=start,
        epochs=epochs,
        depth=depth,
        batch_size=unfreeze.batch_size,
        lr=unfreeze.lr,
        weight_decay=unfreeze.weight_decay,
        # settings without effect at this depth keep their defaults: equal phases must be equal
        backbone_lr_ratio=unfreeze.backbone_lr_ratio if depth else 0.0,
        stage_lr_decay=unfreeze.stage_lr_decay if depth > 1 else 1.0,
        drop_path=unfreeze.drop_path if depth else 0.0,
        adapt_statistics=unfreeze.batch_norm == "adapt" and depth > 0,
        caches_features=_caches_features(train, depth, stages),
        # none in the head phase: at the end of a cosine the weights are as good as their average,
        # and so trials share the head phase whatever their decays are
        ema=0.0 if train.ema == "off" else train.ema,
    )


def _caches_features(train: Train, depth: int, stages: int) -> bool:
    """Whether a phase of this depth caches features. An unresolved `auto` caches none."""
    limit = train.trunk_cache
    return isinstance(limit, int) and depth <= limit and depth < stages


def _depths(train: Train, depth: int) -> list[int]:
    """Depth of each unfreeze epoch."""
    unfreeze = train.unfreeze
    if unfreeze.schedule == "at_once":
        return [depth] * unfreeze.epochs
    opening = unfreeze.open_epochs
    return [min(depth, ceil(depth * (e + 1) / opening)) for e in range(unfreeze.epochs)]
