"""Everything wrong with a search's configuration, found before anything starts."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from trainer.config import (
    BadInput,
    Data,
    Model,
    TrainConfig,
    fixed_errors,
    inert,
    is_written,
    leaves,
    nearest,
    opens_slowly,
    parse_what_can_be,
)
from trainer.model.detectors import count_stages, is_coco, unused
from trainer.model.detectors import errors as model_errors
from trainer.phases import resolve_depth
from trainer.text.redaction import HIDDEN, redacted

from .config import STUDY_VARIABLE, SearchConfig, absolute, tracking_uri
from .sampling import walk
from .space import DECIDING, Dimension, Space, Values, apply, contains, flat, read_space, turn

STORES = {"http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks"}
"""Kinds of tracking URIs that MLflow takes by itself."""


def resolve(raw: dict[str, Any], beside: Path, elsewhere: bool = False) -> SearchConfig:
    """Check raw values whole and make every path absolute, see `absolute`.

    `elsewhere` leaves it to another machine whether the files are there. Raises BadInput with every
    error found.
    """
    config, errors = parse_what_can_be(SearchConfig, raw)
    if config is None:
        raise BadInput(errors)
    config = absolute(config, beside)
    missing = _file_errors(config) if elsewhere else []
    errors += [
        line
        for line in check(config)
        if line not in errors
        and line not in missing
        and not (elsewhere and "model.weights: no file or folder" in line)
    ]
    if errors:
        raise BadInput(errors)
    return config


def check(config: SearchConfig) -> list[str]:
    """Errors between fields of a search, and of its space; an empty list when it is sound."""
    searched = frozenset(config.space)
    found = fixed_errors(config.train, searched)
    found += _password_errors(config)
    found += uri_errors(tracking_uri(config.tracking))
    found += _file_errors(config)
    found += _resource_errors(config)
    space: Space = []
    try:
        space = read_space(config.space)
    except BadInput as error:
        found += error.errors
    found += _asha_errors(config)
    if wrong := model_errors(config.model):
        return found + wrong
    found += _unused_errors(config)
    try:
        stages = count_stages(config.model)
        resolve_depth(config.train.unfreeze.depth, stages)
    except BadInput as error:
        return found + error.errors
    return found + space_errors(space, config, config.search.first, stages)


def _unused_errors(config: SearchConfig) -> list[str]:
    """Fields that were written though they do nothing with the one model."""
    if any(name.startswith("model.") for name in config.space):
        return []
    return [
        f"{path}: has no effect, since {why}; leave it out"
        for path, why in unused(config).items()
        if path not in config.space and is_written(config, path)
    ]


def _password_errors(config: SearchConfig) -> list[str]:
    variables = {"study": STUDY_VARIABLE, "tracking": "MLFLOW_TRACKING_URI"}
    return [
        f"{name}: {redacted(uri)} has a password in it, which would be stored; leave {name} out "
        f"and set {variable}"
        for name, variable in variables.items()
        if (uri := getattr(config, name)) and redacted(uri) != uri and HIDDEN not in uri
    ]


def uri_errors(uri: str) -> list[str]:
    """A tracking URI of no kind that MLflow has a store for: it would take no row, ever."""
    kind, is_url, _ = uri.partition("://")
    legal = {*STORES, *(store.name for store in entry_points(group="mlflow.tracking_store"))}
    known = kind.partition("+")[0] in legal and (is_url or kind == "databricks")
    # MLflow keeps up its store of files no more, and opens it only where this is set
    is_allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
    is_folder = (not is_url or kind == "file") and is_allowed
    if uri == "off" or known or is_folder:
        return []
    return [f"tracking: {redacted(uri)} (legal: off, or one of {', '.join(sorted(legal))}://)"]


def _file_errors(config: SearchConfig) -> list[str]:
    errors = []
    if isinstance(config.data, Data):
        for name in ("train", "val", "test"):
            file = getattr(config.data, name)
            if file is not None and not file.exists():
                errors.append(f"data.{name}: no file {file}")
        folders = config.data.images
        for folder in folders.values() if isinstance(folders, dict) else [folders]:
            if folder is not None and not folder.is_dir():
                errors.append(f"data.images: no folder {folder}")
    return errors


def _resource_errors(config: SearchConfig) -> list[str]:
    """What a trial wants and this machine lacks, where no other is asked; of clusters the driver
    learns when it has joined one."""
    share = config.resources
    if share == "auto":
        return []
    if share.accelerator_type and not share.gpus_per_trial:
        return [
            f"resources.accelerator_type: {share.accelerator_type} has no effect while "
            "gpus_per_trial is 0"
        ]
    if config.cluster != "local":
        return []
    offered = {"cpus_per_trial": os.cpu_count() or 1, "gpus_per_trial": torch.cuda.device_count()}
    return [
        f"resources.{name}: {getattr(share, name):g} (legal: at most {most}, what this machine has)"
        for name, most in offered.items()
        if getattr(share, name) > most
    ]


def _asha_errors(config: SearchConfig) -> list[str]:
    asha, unfreeze = config.search.asha, config.train.unfreeze
    if asha == "off":
        return []
    errors = []
    grace = f"search.asha.grace_period: {asha.grace_period}"
    if asha.grace_period > unfreeze.epochs:
        errors.append(f"{grace} is more than train.unfreeze.epochs ({unfreeze.epochs})")
    try:
        space = flat(read_space(config.space))
    except BadInput:  # told elsewhere
        space = []
    bounds = [_samples(own) for own in space if own.name == "train.unfreeze.open_epochs"]
    opening = max([unfreeze.open_epochs, *(value for own in bounds for value in own)])
    slowly = opens_slowly(config.train, {own.name for own in space})
    if slowly and asha.grace_period < opening:
        errors.append(
            f"{grace} is less than train.unfreeze.open_epochs ({opening}): "
            "trials would be judged half open"
        )
    return errors


def space_errors(space: Space, written: TrainConfig, first: list[Values], stages: int) -> list[str]:
    """Dimensions whose bounds the field refuses, or that leave out a point to be tried first."""
    found: list[str] = []
    dimensions = flat(space)
    for dimension in dimensions:
        found += _bound_errors(dimension, written)
    for model in reachable(space, written):
        found += [f"space.{line}" for line in model_errors(model) if f"space.{line}" not in found]
    if found:
        return found
    stages = min(stages, *(count_stages(model) for model in reachable(space, written)))
    for dimension in dimensions:
        found += _depth_errors(dimension, written, stages)
        found += _opening_errors(dimension, written)
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
    return found or _effect_errors(space, written)


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
            inner = sorted([*first.branches.get(value, []), *rest], key=turn)
            yield from reachable(inner, config)
        return
    yield written.model


def _bound_errors(dimension: Dimension, written: TrainConfig) -> list[str]:
    if dimension.high == "all" and dimension.name != "train.unfreeze.depth":
        return [f"space.{dimension.name}: all is a depth; give a number"]
    found: list[str] = []
    samples = _samples(dimension)
    for bound in samples:
        try:
            apply(written, {dimension.name: bound})
        except BadInput as error:
            if not found and dimension.kind in ("log", "uniform") and bound == samples[1]:
                return [  # the lower end was legal
                    f"space.{dimension.name}: {dimension.kind} gives numbers like {bound:.4g}, "
                    "which it does not take; use int or choice"
                ]
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


def _opening_errors(dimension: Dimension, written: TrainConfig) -> list[str]:
    most = written.train.unfreeze.epochs
    return [
        f"space.{dimension.name}: {bound} is more than train.unfreeze.epochs ({most})"
        for bound in _samples(dimension)
        if dimension.name == "train.unfreeze.open_epochs" and bound > most
    ][:1]


def _effect_errors(space: Space, written: TrainConfig) -> list[str]:
    """Dimensions that have no effect in any trial: every way is gone that what decides may take."""
    dimensions = flat(space)
    reached: set[str] = set()
    values: Values = {}
    ways = [_Way()] if space else []
    while ways and not all(dimension.name in reached for dimension in dimensions):
        way = ways.pop()
        values = walk(space, written, way.choose)
        reached |= way.reached
        ways += way.others()
    config = apply(written, values)
    why = inert(config.train) | unused(config)
    return [
        f"space.{dimension.name}: has no effect in any trial"
        + (f", since {why[dimension.name]}" if dimension.name in why else "")
        + "; leave it out"
        for dimension in dimensions
        if dimension.name not in reached
    ]


@dataclass
class _Way:
    """A way through a space: which of its samples each dimension takes, in the order asked."""

    taken: tuple[int, ...] = ()
    """The first so many; all later ones take their first sample."""
    options: list[int] = field(default_factory=list)
    """How many samples each dimension had that was asked."""
    reached: set[str] = field(default_factory=set)
    """Names of these dimensions."""

    def choose(self, dimension: Dimension, _: Any) -> Any:
        samples = _samples(dimension)
        if turn(dimension) == len(DECIDING) and not dimension.branches:
            samples = samples[:1]  # whatever it is, it decides nothing
        asked = len(self.options)
        self.options.append(len(samples))
        self.reached.add(dimension.name)
        return samples[self.taken[asked] if asked < len(self.taken) else 0]

    def others(self) -> Iterator["_Way"]:
        """All ways that part from this one at a later dimension."""
        for step in range(len(self.taken), len(self.options)):
            before = (*self.taken, *[0] * (step - len(self.taken)))
            for other in range(1, self.options[step]):
                yield _Way((*before, other))


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


def _describe(dimension: Dimension) -> str:
    if dimension.kind == "choice":
        return f"choice of {', '.join(map(str, dimension.choices))}"
    return f"{dimension.kind} {dimension.low:g} to {dimension.high}"
