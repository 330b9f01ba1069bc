"""The plan that `unfreeze search --dry-run` prints: what would run, and how long it would take."""

from typing import Any

from rich.console import Console

from trainer.config import TrainConfig
from trainer.data.canvas import cache_folder
from trainer.data.dataset import Splits
from trainer.data.loading import load
from trainer.phases import plan
from trainer.text.counts import counted
from trainer.training.phase_cache import phase_settings
from trainer.training.probe import gpu_memory_fraction, time_epochs

from ..ranking.asha import rungs
from ..ranking.forecast import confirming_epochs, expected_epochs
from ..reporting.console import text_console
from ..reporting.cost_text import duration
from ..running.resolve_auto import resolve_auto
from ..running.trial_resources import (
    largest_config,
    num_threads,
    resources_of_this_machine,
    resources_on_shared_gpu,
)
from ..running.trials_at_once import trials_at_once
from ..space.config import SearchConfig
from ..space.config_file import stored_config, write_yaml
from ..space.space import Dimension, Space, all_dimensions, read_space, with_values


def print_plan(config: SearchConfig) -> None:
    """Print the plan of a search. Raises InputError like the search itself."""
    data = load(config.data, cache_folder(), model=config.model)
    console = text_console()
    console.print(write_yaml(stored_config(config)), end="", soft_wrap=True)
    space = read_space(config.space)
    varied = head_dimensions(config, space)
    heads = 0
    if config.train.head.epochs:
        heads = config.search.trials if varied else 1
    most = (
        heads * config.train.head.epochs
        + config.search.trials * config.train.unfreeze.epochs
        + confirming_epochs(config)
    )
    _print_trials(console, config, heads, varied)
    threads, alone, slots = _trials_at_once(console, config, data, space)
    repeated_heads = max(0, heads - 1) * config.train.head.epochs
    about = min(expected_epochs(config, slots) + repeated_heads, most)
    console.print(f"epochs: at most {most}, about {about}")
    _print_timing(console, config, data, about, threads, slots, alone)


def head_dimensions(config: TrainConfig, space: Space) -> list[str]:
    """The searched fields that the head phase depends on: their trials cannot share one."""
    if not config.train.head.epochs:
        return []
    as_written = _head_key(config)
    return [
        dimension.name
        for dimension in all_dimensions(space)
        if any(
            _head_key(_with_value(config, dimension.name, value)) != as_written
            for value in _two_values(dimension)
        )
    ]


def _head_key(config: TrainConfig) -> str:
    """Equal for trials whose head phase is the same, whatever they unfreeze after it."""
    train = _with_value(config, "train.unfreeze.depth", 0).train
    return phase_settings(config, plan(train, stages=1)[:1])


def _two_values(dimension: Dimension) -> tuple[Any, ...]:
    """Values of a dimension that differ: all its choices, or its bounds."""
    if dimension.choices:
        return dimension.choices
    high = dimension.low + 1 if isinstance(dimension.high, str) else dimension.high
    return dimension.low, high


def _with_value(config: Any, name: str, value: Any) -> Any:
    """A copy with one dotted field changed.

    It is not checked: some fields are legal only with others of the same trial.
    """
    field, _, rest = name.partition(".")
    if rest:
        value = _with_value(getattr(config, field), rest, value)
    return config.model_copy(update={field: value})


def _print_trials(console: Console, config: SearchConfig, heads: int, varied: list[str]) -> None:
    search = config.search
    console.print(f"\n{search.trials} trials")
    if search.confirm != "off":
        seeds = search.confirm.seeds
        console.print(
            f"then the best {search.confirm.top} and the baseline again with "
            f"{counted(seeds, 'other seed')}: at most {confirming_epochs(config)} epochs"
        )
    verb = "varies" if len(varied) == 1 else "vary"
    note = f", since {', '.join(varied)} {verb}" if varied else ""
    console.print(f"head phases trained: {'at most ' if heads > 1 else ''}{heads}{note}")
    if search.asha != "off":
        heights = rungs(search.asha, config.train.unfreeze.epochs)
        shown = ", ".join(map(str, heights)) or "none"
        console.print(f"ASHA compares at unfreeze epochs: {shown}")


def _trials_at_once(
    console: Console, config: SearchConfig, data: Splits, space: Space
) -> tuple[int, int, int]:
    """Threads a trial, trials at once that each have a device alone, and trials at once."""
    resources, machines = resources_of_this_machine(config)
    alone = max(1, trials_at_once(resources, machines))
    largest = largest_config(config, space) if config.resources == "auto" else None
    if resources.gpus_per_trial and largest:
        with console.status("timing a few steps"):
            memory = gpu_memory_fraction(largest, data, num_threads(resources))
        resources = resources_on_shared_gpu(config, resources, memory, machines, [])
    return num_threads(resources), alone, max(alone, trials_at_once(resources, machines))


def _print_timing(
    console: Console,
    config: SearchConfig,
    data: Splits,
    epochs: int,
    threads: int,
    slots: int,
    alone: int,
) -> None:
    """Time a few steps and print how long the search takes.

    Args:
        console: where to print.
        config: the search.
        data: its data set.
        epochs: epochs of all trials.
        threads: CPU threads of a trial.
        slots: trials at once.
        alone: of these, how many would have their devices alone, as the timed steps have.
    """
    with console.status("timing a few steps"):
        resolved = resolve_auto(config, data, threads)
        values = {"train.precision": resolved.precision, "train.trunk_cache": resolved.trunk_cache}
        timing = time_epochs(with_values(config, values), data, threads)
    head = config.train.head.epochs
    seconds = (head * timing.head + max(0, epochs - head) * timing.unfrozen) / alone
    # trials that share a GPU leave it idle less than one alone does
    about = "about" if alone == slots else "at most about"
    console.print(
        f"timed here: {timing.head:.1f} s an epoch of the head phase, {timing.unfrozen:.1f} s an "
        f"unfrozen one; {about} {duration(seconds)} with {slots} at once on this machine"
    )
