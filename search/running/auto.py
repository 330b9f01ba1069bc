"""What `auto` in a search's configuration comes to: settled once, so that all its trials agree."""

from dataclasses import dataclass

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.precision import resolve
from trainer.training.probe import choose_trunk_cache

from ..reporting.progress import Progress
from ..space.config import SearchConfig
from ..space.space import apply
from ..study.study import Study


@dataclass(frozen=True)
class Settled:
    """What `auto` comes to on a machine."""

    precision: str
    trunk_cache: int | str
    text: str
    """Why, in a line; empty where nothing was measured."""
    gains: tuple[float, ...] = ()
    """How many times as fast kept outputs make a phase, by its depth, as measured."""


def settle(config: TrainConfig, data: Splits, threads: int) -> Settled:
    """Settle a configuration for the machine that this is called on, where a trial would run."""
    precision = resolve(config.train.precision)
    train = config.train.model_copy(update={"precision": precision})
    choice = choose_trunk_cache(config.model_copy(update={"train": train}), data, threads)
    return Settled(precision, choice.setting, choice.text, choice.gains)


def is_settled(study: Study) -> bool:
    """Whether the study holds it already, as that of a continued search does."""
    return study.precision != "" and study.trunk_cache is not None


def record_settled(study: Study, settled: Settled, progress: Progress) -> None:
    """Write it into the study, and say why."""
    study.precision = settled.precision
    study.cache_speedups = settled.gains
    study.trunk_cache = settled.trunk_cache
    if settled.text:
        progress.say(settled.text)


def settled_config(config: SearchConfig, study: Study) -> TrainConfig:
    """The configuration without any `auto` of a trial's."""
    settled = {"train.precision": study.precision, "train.trunk_cache": study.trunk_cache}
    return apply(config, settled)
