"""The plan of a trial: which stages train in which epochs. Freeze state follows from it alone."""

from dataclasses import dataclass
from itertools import groupby
from math import ceil

from .config import BadInput, Depth, Train


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A run of epochs with one freeze state and one learning-rate schedule."""

    name: str
    """`head` or `unfreeze`."""
    first_epoch: int
    """The trial's epoch at which the phase starts, from 0."""
    epochs: int
    depth: int
    """Backbone stages that train, from the head end."""
    batch_size: int
    lr: float
    backbone_lr_ratio: float
    weight_decay: float
    stage_lr_decay: float = 1.0
    """Learning rate of each open stage, as a share of that of the one above it."""
    drop_path: float = 0.0
    """Stochastic depth of the open stages, see `freezing.set_depth`."""
    adapt_statistics: bool = False
    """Whether BatchNorm statistics of the open stages follow the batches."""
    keep_outputs: bool = False
    """Whether the outputs of the frozen stages are computed once and kept, see `trunk_cache`."""

    @property
    def end(self) -> int:
        """The epoch after the last one."""
        return self.first_epoch + self.epochs


def plan(train: Train, stages: int) -> list[Phase]:
    """The phases of a trial on a backbone of that many stages, in order.

    Raises BadInput when the depth is more than the backbone has.
    """
    head, unfreeze = train.head, train.unfreeze
    depth = resolve_depth(unfreeze.depth, stages)
    phases = []
    if head.epochs:
        phases.append(
            Phase(
                name="head",
                first_epoch=0,
                epochs=head.epochs,
                depth=0,
                batch_size=head.batch_size,
                lr=head.lr,
                backbone_lr_ratio=0.0,
                weight_decay=head.weight_decay,
                keep_outputs=_keeps(train, 0, stages),
            )
        )
    start = head.epochs
    for open_depth, run in groupby(_depths(train, depth)):
        epochs = len(list(run))
        phases.append(
            Phase(
                name="unfreeze",
                first_epoch=start,
                epochs=epochs,
                depth=open_depth,
                batch_size=unfreeze.batch_size,
                lr=unfreeze.lr,
                backbone_lr_ratio=unfreeze.backbone_lr_ratio if open_depth else 0.0,
                weight_decay=unfreeze.weight_decay,
                # what acts on several stages is as it was where none or one is open
                stage_lr_decay=unfreeze.stage_lr_decay if open_depth > 1 else 1.0,
                drop_path=unfreeze.drop_path if open_depth else 0.0,
                adapt_statistics=unfreeze.batch_norm == "adapt" and open_depth > 0,
                keep_outputs=_keeps(train, open_depth, stages),
            )
        )
        start += epochs
    return phases


def resolve_depth(depth: Depth, stages: int) -> int:
    """`all` as a number; raises BadInput beyond the backbone's stages."""
    if depth == "all":
        return stages
    if not 0 <= depth <= stages:
        raise BadInput([f"train.unfreeze.depth: {depth} (legal: 0 to {stages}, or all)"])
    return depth


def _keeps(train: Train, depth: int, stages: int) -> bool:
    """Whether a phase of that depth keeps outputs; `auto` is settled before, or keeps none."""
    limit = train.trunk_cache
    return isinstance(limit, int) and depth <= limit and depth < stages


def _depths(train: Train, depth: int) -> list[int]:
    """Depth at each unfreeze epoch."""
    unfreeze = train.unfreeze
    if unfreeze.schedule == "at_once":
        return [depth] * unfreeze.epochs
    opening = unfreeze.open_epochs
    return [min(depth, ceil(depth * (e + 1) / opening)) for e in range(unfreeze.epochs)]
