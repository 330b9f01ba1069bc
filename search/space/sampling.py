"""How a trial's values are chosen from the search space."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from trainer.config import LR_RANGES, TrainConfig, get, inert
from trainer.model.detectors import count_stages, unused
from trainer.phases import resolve_depth

from .space import Dimension, Space, Values, apply, turn

Choose = Callable[[Dimension, Any], Any]
"""Gives the value of a dimension whose bounds are numbers; the second is the value as written."""


def walk(space: Space, written: TrainConfig, choose: Choose) -> Values:
    """Choose a value for each dimension that has an effect, given those chosen before it."""
    values: Values = {}
    config = written
    todo = list(space)
    while todo:
        dimension = todo.pop(0)
        if dimension.name in inert(config.train) | unused(config):
            continue
        value = choose(_bounded(dimension, config), get(written, dimension.name))
        values[dimension.name] = value
        config = apply(written, values)
        # a branch's own dimensions come next, so that what they decide is known to the rest; each
        # is in the place of one of that field outside
        inner = dimension.branches.get(value, [])
        names = {own.name for own in inner}
        todo = sorted([*inner, *(own for own in todo if own.name not in names)], key=turn)
    return values


def _bounded(dimension: Dimension, config: TrainConfig) -> Dimension:
    if dimension.high == "all":
        return replace(dimension, high=count_stages(config.model))
    if dimension.high == "auto":
        optimizer = config.train.optimizer
        low, high = LR_RANGES[optimizer]
        branch = f"{dimension.branch} train.optimizer={optimizer}".strip()
        return replace(dimension, low=low, high=high, branch=branch)
    return dimension


def suggest(space: Space, written: TrainConfig, trial: optuna.Trial) -> Values:
    """The values that Optuna gives a trial; those already given stay."""

    def choose(dimension: Dimension, _: Any) -> Any:
        name, low, high = dimension.parameter, dimension.low, dimension.high
        assert not isinstance(high, str)
        if dimension.kind == "choice":
            return trial.suggest_categorical(name, dimension.choices)
        if dimension.kind == "int":
            return trial.suggest_int(name, int(low), int(high))
        return trial.suggest_float(name, low, high, log=dimension.kind == "log")

    return walk(space, written, choose)


def as_written(space: Space, written: TrainConfig) -> Values:
    """The values of the configuration as written, by Optuna's parameter names."""
    parameters: Values = {}

    def choose(dimension: Dimension, value: Any) -> Any:
        if value == "all" and dimension.kind != "choice":
            value = resolve_depth(value, count_stages(written.model))
        parameters[dimension.parameter] = value
        return value

    walk(space, written, choose)
    return parameters
