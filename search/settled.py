"""What `auto` in a search's configuration comes to: settled once, so that all its trials agree."""

from dataclasses import dataclass
from typing import Any

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.engine import Diverged
from trainer.precision import resolve
from trainer.timing import choose_trunk_cache, memory_share

from .config import SearchConfig
from .progress import Progress
from .space import Space, Values, apply, flat
from .study import Study

FIELDS = ("precision", "trunk_cache")
"""Of `train`; the study holds what each came to."""


@dataclass(frozen=True)
class Settled:
    """What `auto` comes to on a machine."""

    precision: str
    trunk_cache: int | str
    text: str
    """Why, in a line; empty where nothing was measured."""
    gpu_share: float = 0.0
    """Of a GPU's memory, what the largest trial takes; 0 where nothing was measured."""


def settle(config: TrainConfig, data: Splits, threads: int, largest: TrainConfig | None) -> Settled:
    """Settle a configuration for the machine that this is called on, where a trial would run.

    `largest` is one of which to measure how much of a GPU it takes, where anybody wants to know.
    """
    precision = resolve(config.train.precision)
    train = config.train.model_copy(update={"precision": precision})
    choice = choose_trunk_cache(config.model_copy(update={"train": train}), data, threads)
    taken = _gpu_share(largest, data, threads) if largest else 0.0
    return Settled(precision, choice.setting, choice.text, taken)


def _gpu_share(largest: TrainConfig, data: Splits, threads: int) -> float:
    try:
        return memory_share(largest, data, threads)
    except (Diverged, MemoryError, RuntimeError):  # what trials will tell better
        return 1.0


def largest_trial(config: SearchConfig, space: Space) -> TrainConfig | None:
    """The configuration of a space that takes the most memory to train; None where it compares
    models, of which nobody knows before."""
    values: Values = {}
    for dimension in flat(space):
        name = dimension.name
        if name.startswith("model.") and name != "model.image_size":
            return None
        if name == "train.optimizer":
            values[name] = "adamw"  # two moments a parameter
        elif name.endswith((".batch_size", ".image_size", ".depth")):
            most = dimension.choices or (dimension.high,)
            values[name] = max([*most, values.get(name, 0)], key=_number)
    return apply(config, values)


def _number(value: Any) -> float:
    return float("inf") if value == "all" else float(value)


def is_settled(study: Study) -> bool:
    """Whether the study holds it already, as that of a continued search does."""
    return all(study.get(name) is not None for name in FIELDS)


def record_settled(study: Study, settled: Settled, progress: Progress) -> None:
    """Write it into the study, and say why."""
    study.set("precision", settled.precision)
    study.set("trunk_cache", settled.trunk_cache)
    study.set("gpu_share", settled.gpu_share)
    if settled.text:
        progress.say(settled.text)


def settled_config(config: SearchConfig, study: Study) -> TrainConfig:
    """The configuration without any `auto` of a trial's."""
    return apply(config, {f"train.{name}": study.get(name) for name in FIELDS})
