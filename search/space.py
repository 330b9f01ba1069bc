"""The search space: dimensions over dotted fields, and how a trial's values are chosen from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal

import optuna

from trainer.config import (
    LR_RANGES,
    BadInput,
    Model,
    TrainConfig,
    get,
    inert,
    leaves,
    nearest,
    override,
    parse,
)
from trainer.model.detectors import count_stages, errors, is_coco, unused
from trainer.phases import resolve_depth

Kind = Literal["log", "uniform", "int", "choice"]
Values = dict[str, Any]
"""Dotted field to value: what a trial differs in from the configuration as written."""

FIXED = {
    "train.unfreeze.epochs": "it is ASHA's budget",
    "train.precision": "phases are shared between trials of one precision only",
    "train.trunk_cache": "it makes no model better or worse",
    "train.seed": "it would be searched for luck",
}
LEARNING_RATES = ("train.head.lr", "train.unfreeze.lr")
DECIDING = (
    "model.detector",
    "model.",
    "train.optimizer",
    "train.head.epochs",
    "train.unfreeze.depth",
    "train.unfreeze.schedule",
)
"""Fields on which it depends whether others have an effect: chosen first."""


@dataclass(frozen=True)
class Dimension:
    """One searched field."""

    name: str
    """Dotted field."""
    kind: Kind
    low: float = 0
    high: float | Literal["all", "auto"] = 0
    """`all` is the backbone's stages, `auto` the optimizer's own range of learning rates."""
    choices: tuple[Any, ...] = ()
    branches: dict[Any, "Space"] = field(default_factory=dict)
    """Further dimensions that exist only for one choice."""
    branch: str = ""
    """The choice under which this dimension exists."""

    @property
    def parameter(self) -> str:
        """Its name in Optuna: one field may have another range in each branch."""
        return f"{self.name} ({self.branch})" if self.branch else self.name


Space = list[Dimension]
Choose = Callable[[Dimension, Any], Any]
"""Gives the value of a dimension whose bounds are numbers; the second is the value as written."""


def read_space(raw: dict[str, Any], branch: str = "") -> Space:
    """Dimensions from the `space:` part of a config. Raises BadInput with every error."""
    errors: list[str] = []
    space: Space = []
    legal = [name for name in leaves(TrainConfig) if name not in FIXED]
    for name, spec in raw.items():
        try:
            if name not in legal:
                why = f"cannot be searched: {FIXED[name]}" if name in FIXED else "unknown field"
                raise BadInput(
                    [f"space.{name}: {why}" + ("" if name in FIXED else nearest(name, legal))]
                )
            space.append(_read_dimension(name, spec, branch))
        except BadInput as error:
            errors += error.errors
    if errors:
        raise BadInput(errors)
    return sorted(space, key=_turn)


def _read_dimension(name: str, spec: Any, branch: str) -> Dimension:
    place = f"space.{name}"
    if not isinstance(spec, dict) or len(spec) != 1 or next(iter(spec)) not in Kind.__args__:  # type: ignore[attr-defined]
        raise BadInput(
            [f"{place}: {spec!r} (legal: one of log, uniform, int: [low, high], choice: [...])"]
        )
    (kind, bounds), *_ = spec.items()
    if kind == "choice":
        return _read_choice(name, bounds, branch)
    if bounds == "auto" and kind == "log" and name in LEARNING_RATES:
        return Dimension(name, kind, high="auto", branch=branch)
    numbers = isinstance(bounds, list) and len(bounds) == 2
    if (
        not numbers
        or not _is_number(bounds[0])
        or not (_is_number(bounds[1]) or bounds[1] == "all")
    ):
        raise BadInput([f"{place}: {kind}: {bounds!r} (legal: [low, high])"])
    low, high = bounds
    if not all(isfinite(v) for v in bounds if v != "all"):
        raise BadInput([f"{place}: {kind}: {bounds!r} (legal: finite numbers)"])
    if kind == "log" and low <= 0:
        raise BadInput([f"{place}: log: low is {low} (legal: above 0)"])
    if high == "all" and kind != "int":
        raise BadInput([f"{place}: {kind}: all is a depth, and depths are int"])
    if high != "all" and low >= high:
        raise BadInput([f"{place}: {kind}: low {low} is not below high {high}"])
    if kind == "int" and (low != int(low) or (high != "all" and high != int(high))):
        raise BadInput([f"{place}: int: {bounds!r} (legal: whole numbers)"])
    return Dimension(name, kind, low, high, branch=branch)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_choice(name: str, choices: Any, branch: str) -> Dimension:
    branches = choices if isinstance(choices, dict) else {}
    if not isinstance(choices, list | dict) or not choices:
        raise BadInput(
            [f"space.{name}: choice: {choices!r} (legal: a list, or values with a space each)"]
        )
    for value, own in branches.items():
        if own is not None and not isinstance(own, dict):
            raise BadInput([f"space.{name}: choice {value}: {own!r} (legal: dimensions by name)"])
    inner = {
        value: read_space(own or {}, branch=f"{branch} {name}={value}".strip())
        for value, own in branches.items()
    }
    return Dimension(name, "choice", choices=tuple(choices), branches=inner, branch=branch)


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
        # a branch's own dimensions come next, so that what they decide is known to the rest
        todo = sorted([*dimension.branches.get(value, []), *todo], key=_turn)
    return values


def _turn(dimension: Dimension) -> int:
    """What decides whether others have an effect comes first, in the order of DECIDING."""
    turns = [i for i, prefix in enumerate(DECIDING) if dimension.name.startswith(prefix)]
    return min(turns, default=len(DECIDING))


def _bounded(dimension: Dimension, config: TrainConfig) -> Dimension:
    if dimension.high == "all":
        return replace(dimension, high=count_stages(config.model))
    if dimension.high == "auto":
        optimizer = config.train.optimizer
        low, high = LR_RANGES[optimizer]
        branch = f"{dimension.branch} train.optimizer={optimizer}".strip()
        return replace(dimension, low=low, high=high, branch=branch)
    return dimension


def apply(written: TrainConfig, values: Values) -> TrainConfig:
    """The configuration as written with these values in it. Raises BadInput."""
    raw = written.model_dump(include={"model", "train"})
    for name, value in values.items():
        override(raw, name, value)
    return parse(TrainConfig, raw)


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


def space_errors(space: Space, written: TrainConfig, first: list[Values], stages: int) -> list[str]:
    """Dimensions whose bounds the field refuses, or that leave out a point to be tried first."""
    found: list[str] = []
    dimensions = flat(space)
    for dimension in dimensions:
        found += _bound_errors(dimension, written)
    for model in reachable(space, written):
        found += [f"space.{line}" for line in errors(model) if f"space.{line}" not in found]
    if found:
        return found
    stages = min(stages, *(count_stages(model) for model in reachable(space, written)))
    for dimension in dimensions:
        found += _depth_errors(dimension, written, stages)
    searched = {dimension.name for dimension in dimensions}
    legal = set(leaves(TrainConfig))
    for i, values in enumerate(first):
        found += [
            f"search.first[{i}].{name}: is not searched" + nearest(name, sorted(searched))
            for name in values
            if name in legal and name not in searched
        ]
    if found:
        return found

    points = [("trial 0", written)]
    for i, values in enumerate(first):
        try:
            points.append((f"search.first[{i}]", apply(written, values)))
        except BadInput as error:
            found += [f"search.first[{i}].{line}" for line in error.errors]
    for place, point in points:
        found += _outside(space, point, place, stages)
    return found


def _outside(space: Space, point: TrainConfig, place: str, stages: int) -> list[str]:
    errors = []

    def choose(dimension: Dimension, value: Any) -> Any:
        value = stages if value == "all" and dimension.kind != "choice" else value
        if not contains(dimension, value):
            errors.append(
                f"{dimension.name}: {value}, its value in {place}, lies outside its own dimension "
                f"({_describe(dimension)}); change either"
            )
        return value

    walk(space, point, choose)
    return errors


def flat(space: Space) -> Space:
    """All dimensions, those of branches too."""
    inner = [d for dimension in space for own in dimension.branches.values() for d in flat(own)]
    return [*space, *inner]


def reachable(space: Space, written: TrainConfig) -> Iterator[Model]:
    """Every model that a trial may have, as far as choices tell them apart."""
    own_backbone = is_coco(written.model)
    for first in space:
        if first.kind != "choice" or not (first.branches or first.name.startswith("model.")):
            continue
        if first.name == "model.backbone" and own_backbone:
            continue
        rest = [dimension for dimension in space if dimension is not first]
        for value in first.choices:
            try:
                config = apply(written, {first.name: value})
            except BadInput:  # told as an error of the dimension
                continue
            inner = sorted([*first.branches.get(value, []), *rest], key=_turn)
            yield from reachable(inner, config)
        return
    yield written.model


def _bound_errors(dimension: Dimension, written: TrainConfig) -> list[str]:
    if dimension.high == "all" and dimension.name != "train.unfreeze.depth":
        return [f"space.{dimension.name}: all is a depth; give a number"]
    found = []
    for bound in _samples(dimension):
        try:
            apply(written, {dimension.name: bound})
        except BadInput as error:
            found += [f"space.{line}" for line in error.errors]
    return found


def _depth_errors(dimension: Dimension, written: TrainConfig, stages: int) -> list[str]:
    found = []
    for bound in _samples(dimension) if dimension.name == "train.unfreeze.depth" else ():
        try:
            resolve_depth(apply(written, {dimension.name: bound}).train.unfreeze.depth, stages)
        except BadInput as error:
            found += [f"space.{line}" for line in error.errors]
    return found


def _samples(dimension: Dimension) -> tuple[Any, ...]:
    """Values of a dimension of which its field refuses one if it refuses any."""
    if dimension.high == "auto":
        return ()
    if dimension.kind == "int":
        ends = (dimension.low, dimension.low + 1, dimension.high)
        return tuple(end if end == "all" else int(end) for end in ends)
    return dimension.choices or (dimension.low, _between(dimension), dimension.high)


def _between(dimension: Dimension) -> float:
    """A value inside the bounds as a sampler may give it: for a field may take no fractions, or
    only multiples."""
    assert not isinstance(dimension.high, str)
    return dimension.low + (dimension.high - dimension.low) / 3.1416


def contains(dimension: Dimension, value: Any) -> bool:
    """Whether a value lies in a dimension."""
    if dimension.kind == "choice":
        return value in dimension.choices
    high = float("inf") if isinstance(dimension.high, str) else dimension.high
    return _is_number(value) and dimension.low <= value <= high


def _describe(dimension: Dimension) -> str:
    if dimension.kind == "choice":
        return f"choice of {', '.join(map(str, dimension.choices))}"
    return f"{dimension.kind} {dimension.low:g} to {dimension.high}"
