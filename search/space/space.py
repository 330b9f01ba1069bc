"""The search space: dimensions over dotted fields."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from trainer.config import BadInput, TrainConfig, leaves, nearest, override, parse

Kind = Literal["log", "uniform", "int", "choice"]
Values = dict[str, Any]
"""Dotted field to value: what a trial differs in from the configuration as written."""

FIXED = {
    "train.unfreeze.epochs": "it is ASHA's budget",
    "train.precision": "phases are shared between trials of one precision only",
    "train.trunk_cache": "it makes no model better or worse",
    "model.detections": "trials would be measured by different numbers of boxes",
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
    return sorted(space, key=turn)


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


def turn(dimension: Dimension) -> int:
    """What decides whether others have an effect, itself or in one of its branches, comes first, in
    the order of DECIDING."""
    names = [own.name for own in flat([dimension])]
    turns = [i for i, prefix in enumerate(DECIDING) if any(n.startswith(prefix) for n in names)]
    return min(turns, default=len(DECIDING))


def apply(written: TrainConfig, values: Values) -> TrainConfig:
    """The configuration as written with these values in it. Raises BadInput."""
    raw = written.model_dump(include={"model", "train"})
    for name, value in values.items():
        override(raw, name, value)
    return parse(TrainConfig, raw)


def by_field(parameters: Values) -> Values:
    """A trial's values by dotted field, from its parameters under Optuna's names."""
    return {name.partition(" (")[0]: value for name, value in parameters.items()}


def flat(space: Space) -> Space:
    """All dimensions, those of branches too."""
    inner = [d for dimension in space for own in dimension.branches.values() for d in flat(own)]
    return [*space, *inner]


def contains(dimension: Dimension, value: Any) -> bool:
    """Whether a value lies in a dimension."""
    if dimension.kind == "choice":
        return value in dimension.choices
    high = float("inf") if isinstance(dimension.high, str) else dimension.high
    return _is_number(value) and dimension.low <= value <= high
