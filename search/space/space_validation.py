"""Errors in a search space: dimensions that their fields refuse, and first points outside them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trainer.config import InputError, Model, TrainConfig
from trainer.config_errors import name_hint
from trainer.config_fields import field_paths
from trainer.config_rules import fields_without_effect
from trainer.model.detectors import is_coco, model_errors
from trainer.model.outline import count_stages, unused_settings
from trainer.phases import resolve_depth

from .sampling import choose_values
from .space import (
    DECISIVE_FIELDS,
    Dimension,
    Space,
    Values,
    all_dimensions,
    contains,
    precedence,
    samples,
    with_values,
)


def space_errors(
    space: Space, base_config: TrainConfig, first: list[Values], stages: int
) -> list[str]:
    """Errors of dimensions, and of the points to be tried first.

    Args:
        space: The dimensions.
        base_config: The configuration of the file, without its space.
        first: `search.first`.
        stages: How many stages the base configuration's backbone has.
    """
    dimensions = all_dimensions(space)
    if errors := _field_errors(space, dimensions, base_config):
        return errors
    stages = min(stages, *(count_stages(model) for model in reachable_models(space, base_config)))
    return (
        _joint_errors(dimensions, base_config, first, stages)
        or _point_errors(space, base_config, first, stages)
        or _effect_errors(space, base_config)
    )


def _field_errors(space: Space, dimensions: Space, base_config: TrainConfig) -> list[str]:
    """Bounds that a field refuses, and models that cannot be built."""
    errors: list[str] = []
    for dimension in dimensions:
        errors += _bound_errors(dimension, base_config)
    for model in reachable_models(space, base_config):
        errors += [f"space.{line}" for line in model_errors(model) if f"space.{line}" not in errors]
    return errors


def _joint_errors(
    dimensions: Space, base_config: TrainConfig, first: list[Values], stages: int
) -> list[str]:
    """Bounds that another field or the models forbid, and first values that are not searched."""
    errors: list[str] = []
    for dimension in dimensions:
        errors += _depth_errors(dimension, base_config, stages)
        errors += _opening_errors(dimension, base_config)
    searched = {dimension.name for dimension in dimensions}
    legal = set(field_paths(TrainConfig))
    for i, values in enumerate(first):
        errors += [
            f"search.first[{i}].{name}: is not searched" + name_hint(name, sorted(searched))
            for name in values
            if name in legal and name not in searched
        ]
    return errors


def _point_errors(
    space: Space, base_config: TrainConfig, first: list[Values], stages: int
) -> list[str]:
    """First points that are no configurations, or lie outside their dimensions."""
    errors: list[str] = []
    points = [("trial 0", base_config)]
    for i, values in enumerate(first):
        try:
            points.append((f"search.first[{i}]", with_values(base_config, values)))
        except InputError as error:
            errors += [f"search.first[{i}].{line}" for line in error.errors]
    for place, point in points:
        errors += _outside(space, point, place, stages)
    return errors


def _outside(space: Space, point: TrainConfig, place: str, stages: int) -> list[str]:
    errors = []

    def choose(dimension: Dimension, value: Any) -> Any:
        value = stages if value == "all" and dimension.kind != "choice" else value
        if not contains(dimension, value):
            errors.append(
                f"{dimension.name}: {value}, its value in {place}, lies outside its dimension "
                f"({_describe(dimension)}); change either"
            )
        return value

    choose_values(space, point, choose)
    return errors


def reachable_models(space: Space, base_config: TrainConfig) -> Iterator[Model]:
    """Every model that a trial may have, as far as choices tell them apart."""
    has_backbone = is_coco(base_config.model)  # torchvision's COCO detectors bring their backbone
    for dimension in space:
        if dimension.kind != "choice":
            continue
        if not (dimension.branches or dimension.name.startswith("model.")):
            continue
        if dimension.name == "model.backbone" and has_backbone:
            continue
        rest = [other for other in space if other is not dimension]
        for value in dimension.choices:
            try:
                config = with_values(base_config, {dimension.name: value})
            except InputError:  # `_bound_errors` has this error
                continue
            inner = sorted([*dimension.branches.get(value, []), *rest], key=precedence)
            yield from reachable_models(inner, config)
        return
    yield base_config.model


def _bound_errors(dimension: Dimension, base_config: TrainConfig) -> list[str]:
    if dimension.high == "all" and dimension.name != "train.unfreeze.depth":
        return [f"space.{dimension.name}: all is a depth; give a number"]
    errors: list[str] = []
    bounds = samples(dimension)
    for bound in bounds:
        try:
            with_values(base_config, {dimension.name: bound})
        except InputError as error:
            if not errors and dimension.kind in ("log", "uniform") and bound == bounds[1]:
                return [  # the lower end was legal
                    f"space.{dimension.name}: {dimension.kind} gives numbers like {bound:.4g}, "
                    "which it does not take; use int or choice"
                ]
            errors += [f"space.{line}" for line in error.errors]
    return errors


def _depth_errors(dimension: Dimension, base_config: TrainConfig, stages: int) -> list[str]:
    errors = []
    for bound in samples(dimension) if dimension.name == "train.unfreeze.depth" else ():
        try:
            resolve_depth(
                with_values(base_config, {dimension.name: bound}).train.unfreeze.depth, stages
            )
        except InputError as error:
            errors += [f"space.{line}" for line in error.errors]
    return errors


def _opening_errors(dimension: Dimension, base_config: TrainConfig) -> list[str]:
    most = base_config.train.unfreeze.epochs
    return [
        f"space.{dimension.name}: {bound} is more than train.unfreeze.epochs ({most})"
        for bound in samples(dimension)
        if dimension.name == "train.unfreeze.open_epochs" and bound > most
    ][:1]


def _effect_errors(space: Space, base_config: TrainConfig) -> list[str]:
    """Dimensions without effect in any trial, whatever the decisive fields are."""
    dimensions = all_dimensions(space)
    reached: set[str] = set()
    values: Values = {}
    paths = [_Path()] if space else []
    while paths and not all(dimension.name in reached for dimension in dimensions):
        path = paths.pop()
        values = choose_values(space, base_config, path.choose)
        reached |= path.reached
        paths += path.others()
    config = with_values(base_config, values)
    why = fields_without_effect(config.train) | unused_settings(config)
    return [
        f"space.{dimension.name}: has no effect in any trial"
        + (f", since {why[dimension.name]}" if dimension.name in why else "")
        + "; leave it out"
        for dimension in dimensions
        if dimension.name not in reached
    ]


@dataclass
class _Path:
    """A path through a space: which of its samples each dimension takes, in the order chosen."""

    taken: tuple[int, ...] = ()
    """Index of the sample of the first dimensions; all later ones take their first sample."""
    options: list[int] = field(default_factory=list)
    """How many samples each dimension on the path has."""
    reached: set[str] = field(default_factory=set)
    """Names of the dimensions on the path."""

    def choose(self, dimension: Dimension, _: Any) -> Any:
        options = samples(dimension)
        if precedence(dimension) == len(DECISIVE_FIELDS) and not dimension.branches:
            options = options[:1]  # its value decides nothing
        step = len(self.options)
        self.options.append(len(options))
        self.reached.add(dimension.name)
        return options[self.taken[step] if step < len(self.taken) else 0]

    def others(self) -> Iterator["_Path"]:
        """All paths that leave this one at a later dimension."""
        for step in range(len(self.taken), len(self.options)):
            before = (*self.taken, *[0] * (step - len(self.taken)))
            for other in range(1, self.options[step]):
                yield _Path((*before, other))


def _describe(dimension: Dimension) -> str:
    if dimension.kind == "choice":
        return f"choice of {', '.join(map(str, dimension.choices))}"
    return f"{dimension.kind} {dimension.low:g} to {dimension.high}"
