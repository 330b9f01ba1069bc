"""What a detector consists of, without allocating its weights."""

from dataclasses import dataclass
from functools import cache

import torch

from ..config import InputError, Model, TrainConfig
from . import backbones
from . import torchvision_coco as coco
from .detectors import assemble, is_coco, model_errors
from .freezing import BATCH_NORMS

DROP_PATH, BATCH_NORM = "train.unfreeze.drop_path", "train.unfreeze.batch_norm"
NESTED = {"blocks", "stages", "features"}
"""Modules that hold the layers of several stages: an outline names their children."""


@dataclass(frozen=True)
class Outline:
    """How many parameters the parts of a detector have."""

    stages: tuple[int, ...]
    """Parameters of each stage of the backbone, bottom first."""
    layers: tuple[tuple[str, ...], ...]
    """Names of each stage's outermost modules, such as `layer1` or `blocks.0`."""
    neck_and_head: int
    """Parameters of neck and head."""
    has_adaptable_norms: bool
    """Whether any BatchNorm could adapt its statistics to the batches."""

    def trainable(self, depth: int) -> int:
        """How many parameters train at a depth."""
        return self.neck_and_head + sum(self.stages[len(self.stages) - depth :])


@cache
def outline(model: Model, classes: int = 1) -> Outline:
    """The outline of a detector. Raises InputError like `detectors.build`."""
    unweighted = model.model_copy(update={"weights": "none"})
    if problems := model_errors(unweighted):
        raise InputError(problems)
    with torch.device("meta"):
        detector = assemble(unweighted, classes)
    sizes = {name: p.numel() for name, p in detector.named_parameters()}
    stages = tuple(sum(sizes[f"backbone.{n}"] for n in s.parameters) for s in detector.stages)
    layers = tuple(_layers(stage.parameters) for stage in detector.stages)
    has_adaptable_norms = any(isinstance(m, BATCH_NORMS) and m.eps for m in detector.modules())
    return Outline(stages, layers, sum(sizes.values()) - sum(stages), has_adaptable_norms)


def _layers(parameters: list[str]) -> tuple[str, ...]:
    """The outermost modules of a stage's parameters, each once."""
    layers = []
    for name in parameters:
        first, *more = name.split(".")
        layers.append(f"{first}.{more[0]}" if first in NESTED else first)
    return tuple(dict.fromkeys(layers))


def count_stages(model: Model) -> int:
    """How many stages a detector's backbone has. Raises InputError like `detectors.build`."""
    if is_coco(model):
        return len(coco.BODIES[model.detector].ends)
    return backbones.count_stages(model.backbone)


def unused_settings(config: TrainConfig) -> dict[str, str]:
    """Settings that change nothing with this model: dotted name to the reason."""
    model, reasons = config.model, {}
    if is_coco(model):
        name = f"torchvision's {model.detector}"
        reasons["model.backbone"] = f"model.detector is {model.detector}, which brings a backbone"
        reasons[DROP_PATH] = f"{name} has no stochastic depth"
        if coco.BODIES[model.detector].eps == 0:
            reasons[BATCH_NORM] = f"the norms of {name} were trained frozen, without an eps"
    else:
        name = f"timm's {model.backbone}"
        if not backbones.has_drop_path(model.backbone):
            reasons[DROP_PATH] = f"{name} has no stochastic depth"
    if not outline(model.model_copy(update={"weights": "none"})).has_adaptable_norms:
        reasons.setdefault(BATCH_NORM, f"{name} has no BatchNorm")
    return reasons
