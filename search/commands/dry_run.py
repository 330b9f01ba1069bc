"""The plan that `unfreeze search --dry-run` prints: what would run, and how long it would take."""

from dataclasses import asdict, dataclass
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
from ..reporting.console import Prose, print_json, text_console
from ..reporting.formatting import duration
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


@dataclass(frozen=True)
class Plan:
    """What a search would run at most."""

    heads: int
    """Head phases trained, each with other settings."""
    head_dimensions: list[str]
    """The searched fields that the head phase depends on."""
    asha_epochs: list[int] | None
    """Unfreeze epochs at which ASHA compares trials; None without ASHA."""
    confirming_epochs: int
    epochs: int
    """Epochs in all."""


@dataclass(frozen=True)
class Estimate:
    """How long a search would take on this machine, from a few steps that were timed."""

    epochs: int
    """Epochs in all, since ASHA stops trials."""
    slots: int
    """Trials at once."""
    head_seconds: float
    """Seconds of an epoch of the head phase."""
    unfrozen_seconds: float
    """Seconds of an epoch with the backbone unfrozen."""
    seconds: float
    """Seconds of the search."""
    at_most: bool
    """Whether `seconds` is more than it would take: trials that share a GPU leave it idle less."""


def print_plan(config: SearchConfig, as_json: bool = False) -> None:
    """Print the plan of a search. Raises InputError like the search itself."""
    data = load(config.data, cache_folder(), model=config.model)
    space = read_space(config.space)
    plan = _plan(config, space)
    if as_json:
        print_json(_as_json(config, plan, _estimate(config, data, space, plan)))
        return
    console = text_console()
    console.print(write_yaml(stored_config(config)), end="")
    _print_trials(console, config, plan)
    _print_estimate(console, plan, _estimate(config, data, space, plan))


def _plan(config: SearchConfig, space: Space) -> Plan:
    search, varied = config.search, head_dimensions(config, space)
    heads = 0
    if config.train.head.epochs:
        heads = search.trials if varied else 1
    confirming = confirming_epochs(config)
    return Plan(
        heads=heads,
        head_dimensions=varied,
        asha_epochs=(
            None if search.asha == "off" else rungs(search.asha, config.train.unfreeze.epochs)
        ),
        confirming_epochs=confirming,
        epochs=heads * config.train.head.epochs
        + search.trials * config.train.unfreeze.epochs
        + confirming,
    )


def _as_json(config: SearchConfig, plan: Plan, estimate: Estimate) -> dict[str, Any]:
    """The object of `unfreeze search --dry-run --json`."""
    return {
        "config": stored_config(config),
        "trials": config.search.trials,
        "plan": asdict(plan),
        "estimate": asdict(estimate),
    }


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


def _print_trials(console: Console, config: SearchConfig, plan: Plan) -> None:
    search, heads, varied = config.search, plan.heads, plan.head_dimensions
    console.print(f"\n{search.trials} trials")
    if search.confirm != "off":
        seeds = search.confirm.seeds
        console.print(
            Prose(
                f"then the best {search.confirm.top} and the baseline again with "
                f"{counted(seeds, 'other seed')}: at most {plan.confirming_epochs} epochs"
            )
        )
    verb = "varies" if len(varied) == 1 else "vary"
    note = f", since {', '.join(varied)} {verb}" if varied else ""
    console.print(Prose(f"head phases trained: {'at most ' if heads > 1 else ''}{heads}{note}"))
    if plan.asha_epochs is not None:
        shown = ", ".join(map(str, plan.asha_epochs)) or "none"
        console.print(Prose(f"ASHA compares at unfreeze epochs: {shown}"))


def _print_estimate(console: Console, plan: Plan, estimate: Estimate) -> None:
    console.print(f"epochs: at most {plan.epochs}, about {estimate.epochs}")
    about = "at most about" if estimate.at_most else "about"
    console.print(
        Prose(
            f"timed here: {estimate.head_seconds:.1f} s an epoch of the head phase, "
            f"{estimate.unfrozen_seconds:.1f} s an unfrozen one; {about} "
            f"{duration(estimate.seconds)} with {estimate.slots} at once on this machine"
        )
    )


def _estimate(config: SearchConfig, data: Splits, space: Space, plan: Plan) -> Estimate:
    """Time a few steps, and compute how long the search takes."""
    with Console(stderr=True).status("timing a few steps"):
        threads, alone, slots = _trials_at_once(config, data, space)
        resolved = resolve_auto(config, data, threads)
        values = {"train.precision": resolved.precision, "train.trunk_cache": resolved.trunk_cache}
        timing = time_epochs(with_values(config, values), data, threads)
    head = config.train.head.epochs
    repeated_heads = max(0, plan.heads - 1) * head
    epochs = min(expected_epochs(config, slots) + repeated_heads, plan.epochs)
    seconds = (head * timing.head + max(0, epochs - head) * timing.unfrozen) / alone
    return Estimate(epochs, slots, timing.head, timing.unfrozen, seconds, at_most=alone != slots)


def _trials_at_once(config: SearchConfig, data: Splits, space: Space) -> tuple[int, int, int]:
    """Threads a trial, trials at once that each have a device alone, and trials at once."""
    resources, machines = resources_of_this_machine(config)
    alone = max(1, trials_at_once(resources, machines))
    largest = largest_config(config, space) if config.resources == "auto" else None
    if resources.gpus_per_trial and largest:
        memory = gpu_memory_fraction(largest, data, num_threads(resources))
        resources = resources_on_shared_gpu(config, resources, memory, machines, [])
    return num_threads(resources), alone, max(alone, trials_at_once(resources, machines))
