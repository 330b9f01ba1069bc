"""What a search would run, and how long it would take: `--dry-run`."""

from rich.console import Console

from trainer.data.canvas import cache_folder
from trainer.data.dataset import Splits
from trainer.data.loading import load
from trainer.training.probe import memory_share, time_epochs

from ..ranking.asha import rungs
from ..ranking.forecast import confirming_epochs, expected_epochs
from ..reporting.console import text_console
from ..reporting.cost_text import duration
from ..running.auto import settle
from ..running.resources import at_once, divided, here, largest_trial, threads_of
from ..space.config import SearchConfig
from ..space.config_file import stored, write_yaml
from ..space.space import apply, flat, read_space

HEAD_DEPENDS_ON = (
    "model.",
    "train.head.",
    "train.optimizer",
    "train.momentum",
    "train.augment",
    "train.warmup_epochs",
    "train.clip_norm",
)
"""Fields that make another head phase, see `trainer.training.phase_cache.phase_key`."""


def print_plan(config: SearchConfig) -> None:
    """Print it. Raises BadInput like the search itself."""
    data = load(config.data, cache_folder(), model=config.model)
    console = text_console()
    console.print(write_yaml(stored(config)), end="", soft_wrap=True)
    train, search = config.train, config.search
    heads = 1 if train.head.epochs else 0
    space = read_space(config.space)
    varied = [d.name for d in flat(space) if d.name.startswith(HEAD_DEPENDS_ON)]
    if heads and varied:
        heads = search.trials
    again = confirming_epochs(config)
    most = heads * train.head.epochs + search.trials * train.unfreeze.epochs + again
    console.print(f"\n{search.trials} trials")
    if search.confirm != "off":
        seeds = search.confirm.seeds
        console.print(
            f"then the best {search.confirm.top} and the one as written again with {seeds} other "
            f"seed{'s' if seeds > 1 else ''}: at most {again} epochs"
        )
    vary = "varies" if len(varied) == 1 else "vary"
    note = f", since {', '.join(varied)} {vary}" if varied else ""
    console.print(f"head phases trained: {'at most ' if heads > 1 else ''}{heads}{note}")
    if search.asha != "off":
        heights = ", ".join(map(str, rungs(search.asha, train.unfreeze.epochs))) or "none"
        console.print(f"ASHA compares at unfreeze epochs: {heights}")
    share, machines = here(config)
    whole = max(1, at_once(share, machines))
    largest = largest_trial(config, space) if config.resources == "auto" else None
    if share.gpus_per_trial and largest:
        with console.status("timing a few steps"):
            taken = memory_share(largest, data, threads_of(share))
        share = divided(config, share, taken, machines, [])
    slots = max(whole, at_once(share, machines))
    about = min(expected_epochs(config, slots) + max(0, heads - 1) * train.head.epochs, most)
    console.print(f"epochs: at most {most}, about {about}")
    _print_timing(console, config, data, about, threads_of(share), slots, whole)


def _print_timing(
    console: Console,
    config: SearchConfig,
    data: Splits,
    epochs: int,
    threads: int,
    slots: int,
    whole: int,
) -> None:
    """`whole` is how many of the trials at once have all of what they are timed on."""
    with console.status("timing a few steps"):
        settled = settle(config, data, threads)
        values = {"train.precision": settled.precision, "train.trunk_cache": settled.trunk_cache}
        timing = time_epochs(apply(config, values), data, threads)
    head = config.train.head.epochs
    seconds = (head * timing.head + max(0, epochs - head) * timing.unfrozen) / whole
    about = "about" if whole == slots else "at most about"  # for GPUs that are shared idle less
    console.print(
        f"timed here: {timing.head:.1f} s an epoch of the head phase, {timing.unfrozen:.1f} s an "
        f"unfrozen one; {about} {duration(seconds)} with {slots} at once on this machine"
    )
