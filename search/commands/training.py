"""The commands that train: `unfreeze search` and `unfreeze train`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..study.search_state import SearchState
from .options import add_allow, add_command

if TYPE_CHECKING:
    from ..space.config import SearchConfig
    from .options import Commands


def add_search(commands: "Commands") -> None:
    """Add `unfreeze search`."""
    search = add_command(
        commands, "search", _search, "search, or continue a search", resumable=True
    )
    search.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="default: the embedded one"
    )
    _add_settings(search)
    search.add_argument("--trials", type=int, metavar="T", help="trials in all")
    search.add_argument(
        "--cluster", metavar="X", help="local, auto, a head's address, or a definition's name"
    )
    search.add_argument("--detach", action="store_true", help="as a Ray job, without this terminal")
    search.add_argument("--dry-run", action="store_true", help="say what would run, and stop")


def add_train(commands: "Commands") -> None:
    """Add `unfreeze train`."""
    train = add_command(commands, "train", _train, "train one trial, without Ray", resumable=True)
    train.add_argument("file", type=Path, metavar="FILE")
    _add_settings(train)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="a setting over the file's"
    )
    command.add_argument("--name", metavar="N", help="default: the file's name")
    add_allow(command)


def _search(options: argparse.Namespace) -> int:
    sets = [f"search.trials={options.trials}"] if options.trials is not None else []
    sets += [f"cluster={options.cluster}"] if options.cluster else []
    config = _read_config(options, sets, detached=options.detach)
    if options.dry_run:
        from .dry_run import print_plan

        print_plan(config)
        return 0
    if options.detach:
        from ..running.detached import send

        return send(config, print)
    return _run_search(config)


def _run_search(config: "SearchConfig") -> int:
    from ..reporting import summary
    from ..reporting.console import print_plain
    from ..running.driver import run
    from ..study.disk import is_disk_full

    try:
        result = run(config, summary.progress())
    except OSError as error:
        if not is_disk_full(error):
            raise
        print_plain(f"{error}; free some space, and the same command continues", error=True)
        return 1
    summary.print_result(result)
    good = result.state in {SearchState.DONE, SearchState.OUT_OF_TIME, SearchState.STOPPED}
    return 0 if result.winner is not None and good else 1


def _train(options: argparse.Namespace) -> int:
    from ..reporting import summary
    from ..running.single import train

    config = _read_config(options, ["search.asha=off"], without_space=True)
    result = train(config, summary.lines())
    summary.print_result(result)
    return 0 if result.winner is not None else 1


def _read_config(
    options: argparse.Namespace,
    sets: list[str],
    detached: bool = False,
    without_space: bool = False,
) -> "SearchConfig":
    """Read FILE with the settings of the command line and `sets` over it.

    Raises InputError with every error of the file, and with those of its data set unless the
    search is detached: then the data may lie on the cluster alone.
    """
    from trainer.config import InputError

    from ..space.config_file import read_config
    from ..space.data import data_errors
    from ..space.validation import checked_config

    raw = read_config(options.file, [*options.set, *sets], options.name)
    folder = options.file.parent if options.file else Path()
    if options.allow and isinstance(raw.get("data"), dict):
        raw["data"]["allow"] = [*(raw["data"].get("allow") or []), *options.allow]
    try:
        return checked_config(raw, folder, detached, without_space)
    except InputError as error:
        of_data = [] if detached else data_errors(raw.get("data"), folder)
        raise InputError([*error.errors, *of_data]) from None
