"""What `auto` in a search's configuration resolves to: once, so that all trials agree."""

from dataclasses import dataclass

import ray

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.precision import resolve_precision
from trainer.training.probe import choose_cache_depth

from ..reporting.progress import Progress
from ..space.config import SearchConfig, TrialResources
from ..space.space import with_values
from ..study.study import Study
from .trial_resources import num_threads


@dataclass(frozen=True)
class ResolvedAuto:
    """What `auto` resolves to on a machine."""

    precision: str
    trunk_cache: int | str
    text: str
    """Why, in one line; empty if nothing was measured."""
    speedups: tuple[float, ...] = ()
    """How many times as fast cached features make a phase, by its depth, as measured."""


def resolve_auto(config: TrainConfig, data: Splits, threads: int) -> ResolvedAuto:
    """Resolve `auto` for the machine of this process, on which a trial would run."""
    precision = resolve_precision(config.train.precision)
    train = config.train.model_copy(update={"precision": precision})
    choice = choose_cache_depth(config.model_copy(update={"train": train}), data, threads)
    return ResolvedAuto(precision, choice.setting, choice.text, choice.speedups)


def resolve_on_worker(
    config: SearchConfig, data: Splits, resources: TrialResources, study: Study, progress: Progress
) -> None:
    """Resolve `auto` once for a search, and record it.

    A worker does it: the driver may be on another kind of machine than the trials.
    """
    if is_resolved(study):
        return
    # a worker with a fraction of a GPU would keep the memory that it took
    ask = ray.remote(max_calls=1 if resources.gpus_per_trial else 0)(resolve_auto).options(
        num_cpus=resources.cpus_per_trial,
        num_gpus=resources.gpus_per_trial,
        resources=resources.others,
    )
    base_config = TrainConfig(model=config.model, train=config.train)
    with progress.step(_measured(config)):
        resolved = ray.get(ask.remote(base_config, data, num_threads(resources)))
    record_resolved(study, resolved, progress)


def resolve_here(
    config: SearchConfig, data: Splits, threads: int, study: Study, progress: Progress
) -> None:
    """Resolve `auto` once for a trial in this process, and record it."""
    if not is_resolved(study):
        with progress.step(_measured(config)):
            resolved = resolve_auto(config, data, threads)
        record_resolved(study, resolved, progress)


def _measured(config: TrainConfig) -> str:
    """What is going to be measured: on a slow machine that takes minutes."""
    if config.train.trunk_cache == "auto":
        return "measuring how much faster cached features of frozen stages make training"
    if config.train.trunk_cache != "off":
        return "measuring how much disk space cached features of the frozen stages take"
    return "choosing the precision for this kind of machine"


def is_resolved(study: Study) -> bool:
    """Whether the study holds it already, as that of a continued search does."""
    return study.precision != "" and study.trunk_cache is not None


def record_resolved(study: Study, resolved: ResolvedAuto, progress: Progress) -> None:
    """Record what `auto` resolved to, and tell the user why."""
    study.precision = resolved.precision
    study.cache_speedups = resolved.speedups
    study.trunk_cache = resolved.trunk_cache
    if resolved.text:
        progress.say(resolved.text)


def resolved_config(config: SearchConfig, study: Study) -> TrainConfig:
    """The configuration with each `auto` of `train` replaced by what it resolved to."""
    resolved = {"train.precision": study.precision, "train.trunk_cache": study.trunk_cache}
    return with_values(config, resolved)
