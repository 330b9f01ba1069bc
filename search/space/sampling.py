"""How the values of a trial are chosen from the search space."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from trainer.config import LR_RANGES, TrainConfig
from trainer.config_fields import get_field
from trainer.config_rules import fields_without_effect
from trainer.model.outline import count_stages, unused_settings
from trainer.phases import resolve_depth

from .space import Dimension, Space, Values, precedence, with_values

Choose = Callable[[Dimension, Any], Any]
"""Gives the value of a dimension whose bounds are numbers; the second is its base value."""


def choose_values(space: Space, base_config: TrainConfig, choose: Choose) -> Values:
    """Choose a value for each dimension that has an effect, given the values chosen before it.

    Args:
        space: The dimensions.
        base_config: The configuration that the values change.
        choose: Called for each dimension, in the order of `precedence`.
    """
    values: Values = {}
    config = base_config
    left = list(space)
    while left:
        dimension = left.pop(0)
        if dimension.name in fields_without_effect(config.train) | unused_settings(config):
            continue
        value = choose(_bounded(dimension, config), get_field(base_config, dimension.name))
        values[dimension.name] = value
        config = with_values(base_config, values)
        # the dimensions of a branch join those that are left, so that what they decide is known to
        # the rest; each replaces a dimension of the same field
        inner = dimension.branches.get(value, [])
        names = {branched.name for branched in inner}
        rest = [other for other in left if other.name not in names]
        left = sorted([*inner, *rest], key=precedence)
    return values


def _bounded(dimension: Dimension, config: TrainConfig) -> Dimension:
    """The dimension with numbers for `all` and `auto`, which depend on the values so far."""
    if dimension.high == "all":
        return replace(dimension, high=count_stages(config.model))
    if dimension.high == "auto":
        optimizer = config.train.optimizer
        low, high = LR_RANGES[optimizer]
        branch = f"{dimension.branch} train.optimizer={optimizer}".strip()
        return replace(dimension, low=low, high=high, branch=branch)
    return dimension


def suggest(space: Space, base_config: TrainConfig, trial: optuna.trial.BaseTrial) -> Values:
    """The values that Optuna chooses for a trial; those of an enqueued trial stay.

    Args:
        space: The dimensions.
        base_config: The configuration that the values change.
        trial: Gets the values as its parameters.

    Returns:
        The values by dotted field.
    """

    def choose(dimension: Dimension, _: Any) -> Any:
        name, low, high = dimension.parameter, dimension.low, dimension.high
        assert not isinstance(high, str)
        if dimension.kind == "choice":
            return trial.suggest_categorical(name, dimension.choices)
        if dimension.kind == "int":
            return trial.suggest_int(name, int(low), int(high))
        return trial.suggest_float(name, low, high, log=dimension.kind == "log")

    return choose_values(space, base_config, choose)


def base_parameters(space: Space, base_config: TrainConfig) -> Values:
    """The values of the base configuration, by Optuna's parameter names."""
    parameters: Values = {}

    def choose(dimension: Dimension, value: Any) -> Any:
        if value == "all" and dimension.kind != "choice":
            value = resolve_depth(value, count_stages(base_config.model))
        parameters[dimension.parameter] = value
        return value

    choose_values(space, base_config, choose)
    return parameters
