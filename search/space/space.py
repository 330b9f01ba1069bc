"""The search space: dimensions over dotted fields."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

from trainer.config import InputError, TrainConfig
from trainer.config_errors import name_hint, parse
from trainer.config_fields import field_paths, set_field

Kind = Literal["log", "uniform", "int", "choice"]
Values = dict[str, Any]
"""Values by dotted field: where a trial differs from the base configuration."""

UNSEARCHABLE = {
    "train.unfreeze.epochs": "it is ASHA's budget",
    "train.precision": "phases are shared between trials of one precision only",
    "train.trunk_cache": "it makes no model better or worse",
    "model.detections": "trials would be measured by different numbers of boxes",
    "train.seed": "it would be searched for luck",
}
"""Fields that cannot be searched, and why."""
LEARNING_RATES = ("train.head.lr", "train.unfreeze.lr")
"""Fields that can have `log: auto`."""
DECISIVE_FIELDS = (
    "model.detector",
    "model.",
    "train.optimizer",
    "train.head.epochs",
    "train.unfreeze.depth",
    "train.unfreeze.schedule",
)
"""Prefixes of fields whose values decide whether other fields have an effect. Chosen first."""


@dataclass(frozen=True)
class Dimension:
    """One searched field and its legal values."""

    name: str
    """The dotted field."""
    kind: Kind
    low: float = 0
    high: float | Literal["all", "auto"] = 0
    """`all` is the number of the backbone's stages; `auto` is the learning rates of the optimizer,
    see LR_RANGES."""
    choices: tuple[Any, ...] = ()
    branches: dict[Any, "Space"] = field(default_factory=dict)
    """By choice: dimensions that exist only if it is chosen."""
    branch: str = ""
    """The choices under which this dimension exists, as text; empty if it always does."""

    @property
    def parameter(self) -> str:
        """Its name in Optuna, which has the branch: each branch may have another range."""
        return f"{self.name} ({self.branch})" if self.branch else self.name


Space = list[Dimension]


def read_space(raw: dict[str, Any], branch: str = "") -> Space:
    """Dimensions from the `space:` part of a config, in the order in which they are chosen.

    Args:
        raw: Their specifications by dotted field.
        branch: The choices under which they exist, as text.

    Raises:
        InputError: Has the errors of all dimensions.
    """
    errors: list[str] = []
    space: Space = []
    legal = [name for name in field_paths(TrainConfig) if name not in UNSEARCHABLE]
    for name, spec in raw.items():
        try:
            _require_searchable(name, legal)
            space.append(_read_dimension(name, spec, branch))
        except InputError as error:
            errors += error.errors
    if errors:
        raise InputError(errors)
    return sorted(space, key=precedence)


def _require_searchable(name: str, legal: list[str]) -> None:
    if name in UNSEARCHABLE:
        raise InputError([f"space.{name}: cannot be searched: {UNSEARCHABLE[name]}"])
    if name not in legal:
        raise InputError([f"space.{name}: unknown field{name_hint(name, legal)}"])


def _read_dimension(name: str, spec: Any, branch: str) -> Dimension:
    if not isinstance(spec, dict) or len(spec) != 1 or next(iter(spec)) not in get_args(Kind):
        raise InputError(
            [
                f"space.{name}: {spec!r} "
                "(legal: one of log, uniform, int: [low, high], choice: [...])"
            ]
        )
    (kind, bounds), *_ = spec.items()
    if kind == "choice":
        return _read_choice(name, bounds, branch)
    if bounds == "auto" and kind == "log" and name in LEARNING_RATES:
        return Dimension(name, kind, high="auto", branch=branch)
    if error := _range_error(kind, bounds):
        raise InputError([f"space.{name}: {kind}: {error}"])
    low, high = bounds
    return Dimension(name, kind, low, high, branch=branch)


def _range_error(kind: Kind, bounds: Any) -> str:
    """What is wrong with the bounds of a dimension; empty if nothing is."""
    if not _is_range(bounds):
        return f"{bounds!r} (legal: [low, high])"
    low, high = bounds
    if not all(isfinite(bound) for bound in bounds if bound != "all"):
        return f"{bounds!r} (legal: finite numbers)"
    if kind == "log" and low <= 0:
        return f"low is {low} (legal: above 0)"
    if high == "all" and kind != "int":
        return "all is a depth, and depths are int"
    if high != "all" and low >= high:
        return f"low {low} is not below high {high}"
    if kind == "int" and (low != int(low) or (high != "all" and high != int(high))):
        return f"{bounds!r} (legal: whole numbers)"
    return ""


def _is_range(bounds: Any) -> bool:
    if not isinstance(bounds, list) or len(bounds) != 2:
        return False
    low, high = bounds
    return _is_number(low) and (_is_number(high) or high == "all")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_choice(name: str, choices: Any, branch: str) -> Dimension:
    branches = choices if isinstance(choices, dict) else {}
    if not isinstance(choices, list | dict) or not choices:
        raise InputError(
            [f"space.{name}: choice: {choices!r} (legal: a list, or values with a space each)"]
        )
    for value, raw in branches.items():
        if raw is not None and not isinstance(raw, dict):
            raise InputError([f"space.{name}: choice {value}: {raw!r} (legal: dimensions by name)"])
    inner = {
        value: read_space(raw or {}, branch=f"{branch} {name}={value}".strip())
        for value, raw in branches.items()
    }
    return Dimension(name, "choice", choices=tuple(choices), branches=inner, branch=branch)


def precedence(dimension: Dimension) -> int:
    """Sort key of the order in which dimensions are chosen.

    It is the first place in DECISIVE_FIELDS of the dimension or of one in its branches, so that
    what decides whether other dimensions have an effect comes before them.
    """
    names = [inner.name for inner in all_dimensions([dimension])]
    places = [
        place
        for place, prefix in enumerate(DECISIVE_FIELDS)
        if any(name.startswith(prefix) for name in names)
    ]
    return min(places, default=len(DECISIVE_FIELDS))


def with_values(base_config: TrainConfig, values: Values) -> TrainConfig:
    """The base configuration with these values in it.

    Raises:
        InputError: A field refuses its value, or fields do not fit together.
    """
    raw = base_config.model_dump(include={"model", "train"})
    for name, value in values.items():
        set_field(raw, name, value)
    return parse(TrainConfig, raw)


def values_by_field(parameters: Values) -> Values:
    """A trial's values by dotted field, from its values by Optuna's parameter names."""
    return {name.partition(" (")[0]: value for name, value in parameters.items()}


def all_dimensions(space: Space) -> Space:
    """All dimensions, with those of branches."""
    inner = [
        d
        for dimension in space
        for branch in dimension.branches.values()
        for d in all_dimensions(branch)
    ]
    return [*space, *inner]


def samples(dimension: Dimension) -> tuple[Any, ...]:
    """A few values of a dimension; if its field refuses any value, it refuses one of these."""
    if dimension.high == "auto":
        return ()
    if dimension.kind == "int":
        ends = (dimension.low, dimension.low + 1, dimension.high)
        return tuple(end if end == "all" else int(end) for end in ends)
    return dimension.choices or (dimension.low, _between(dimension), dimension.high)


def _between(dimension: Dimension) -> float:
    """A value inside the bounds with many decimals, as a sampler may give it.

    Some fields take no fractions, or only multiples of a number.
    """
    assert not isinstance(dimension.high, str)
    return dimension.low + (dimension.high - dimension.low) / 3.1416


def contains(dimension: Dimension, value: Any) -> bool:
    """Whether a value lies in a dimension."""
    if dimension.kind == "choice":
        return value in dimension.choices
    high = float("inf") if isinstance(dimension.high, str) else dimension.high
    return _is_number(value) and dimension.low <= value <= high
