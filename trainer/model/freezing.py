"""Stages of a backbone, and the one function that freezes and opens them."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from timm.layers.drop import DropPath
from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


@dataclass
class Stage:
    """One level of a backbone: names of its modules, parameters and buffers."""

    modules: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)


def split_stages(backbone: nn.Module, levels: Sequence[str]) -> list[Stage]:
    """Split a backbone into stages, bottom first.

    A module belongs to the first level whose last module comes at or after it. What follows the
    last level belongs to the last. A level without parameters joins the one below.

    Args:
        backbone: The backbone.
        levels: Names of the modules that end the feature levels, in order.
    """
    modules = [name for name, _ in backbone.named_modules()]
    # a level ends with the last module inside of the one that it is named after
    ends = [
        max(i for i, name in enumerate(modules) if name == level or name.startswith(level + "."))
        for level in levels
    ]
    owner = {name: min(bisect_left(ends, i), len(ends) - 1) for i, name in enumerate(modules)}

    stages = [Stage() for _ in ends]
    for name in modules:
        stages[owner[name]].modules.append(name)
    for name, _ in backbone.named_parameters():
        stages[owner[name.rpartition(".")[0]]].parameters.append(name)
    for name, _ in backbone.named_buffers():
        stages[owner[name.rpartition(".")[0]]].buffers.append(name)
    return _join_empty(stages)


def _join_empty(stages: list[Stage]) -> list[Stage]:
    """Join each stage without parameters to the one below."""
    joined: list[Stage] = []
    for stage in stages:
        if stage.parameters or not joined:
            joined.append(stage)
        else:
            joined[-1].modules += stage.modules
            joined[-1].buffers += stage.buffers
    return joined


def stop_drop_paths(backbone: nn.Module) -> None:
    """Turn off the stochastic depth of a backbone that was built with a rate of 1.

    Each block keeps its rate as `relative_rate`: deeper blocks are skipped more often.
    """
    for module in backbone.modules():
        if isinstance(module, DropPath):
            module.relative_rate, module.drop_prob = module.drop_prob, 0.0  # type: ignore[assignment]


def set_depth(
    detector: nn.Module,
    stages: list[Stage],
    depth: int,
    *,
    adapt_statistics: bool = False,
    drop_path: float = 0.0,
) -> None:
    """Put a detector into the freeze state of a depth; applied again at each epoch.

    The top `depth` stages train, the others are frozen and in eval mode. Neck and head always
    train. BatchNorm statistics, those of a pretrained neck and head too, stay as they are unless
    `adapt_statistics`.

    Args:
        detector: A detector.
        stages: The stages of `detector.backbone`.
        depth: How many stages are open, counted from the head end.
        adapt_statistics: Whether BatchNorms in open stages update their statistics.
        drop_path: Probability that the deepest block is skipped in training.
    """
    opened = stages[len(stages) - depth :]
    open_modules = {name for stage in opened for name in stage.modules}
    open_parameters = {name for stage in opened for name in stage.parameters}

    detector.train()
    backbone = detector.get_submodule("backbone")
    for name, module in backbone.named_modules():
        module.training = name in open_modules  # train() would reach the children too
        if isinstance(module, DropPath):
            module.drop_prob = module.relative_rate * drop_path  # type: ignore[assignment, operator]
    for module in detector.modules():
        # a norm without an eps was trained frozen: one constant channel in a batch divides by 0
        if isinstance(module, BATCH_NORMS) and not (adapt_statistics and module.eps):
            module.training = False
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in open_parameters)
        if name not in open_parameters:
            parameter.grad = None


def opened_names(stages: list[Stage], depth: int) -> set[str]:
    """Names, within the backbone, of the tensors that may differ from the pretrained ones."""
    opened = stages[len(stages) - depth :]
    return {name for stage in opened for name in (*stage.parameters, *stage.buffers)}
