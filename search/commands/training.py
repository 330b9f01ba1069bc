"""The commands that train: `unfreeze search` and `unfreeze train`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..study.search_state import SearchState
from .options import add_allow, add_command, add_json

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
    add_json(search)


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
    from trainer.config import InputError

    if options.json and not options.dry_run:
        raise InputError(["--json: needs --dry-run; `status NAME --json` says how a search goes"])
    settings = {"search.trials": options.trials, "cluster": options.cluster}
    given: dict[str, Any] = {path: v for path, v in settings.items() if v is not None}
    if options.dry_run:
        from .dry_run import print_plan

        print_plan(_read_config(options, given, detached=options.detach), options.json)
        return 0
    if options.detach:
        from ..running.detached import send

        return send(_read_config(options, given, detached=True), print)
    return _run_search(options, given)


def _run_search(options: argparse.Namespace, settings: dict[str, Any]) -> int:
    from ..reporting import summary

    progress = summary.progress()
    with progress.step("loading PyTorch, and reading the configuration"):
        config = _read_config(options, settings)
    with progress.step("loading Ray and MLflow"):
        from ..running.driver import run
    result = run(config, progress)
    summary.print_result(result)
    good = result.state in {SearchState.DONE, SearchState.OUT_OF_TIME, SearchState.STOPPED}
    return 0 if result.winner is not None and good else 1


def _train(options: argparse.Namespace) -> int:
    from ..reporting import summary

    progress = summary.lines()
    with progress.step("loading PyTorch, and reading the configuration"):
        config = _read_config(options, {"search.asha": "off"}, without_space=True)
        from ..running.single import train
    result = train(config, progress)
    summary.print_result(result)
    return 0 if result.winner is not None else 1


def _read_config(
    options: argparse.Namespace,
    settings: dict[str, Any],
    *,
    detached: bool = False,
    without_space: bool = False,
) -> "SearchConfig":
    """Read FILE with the command line's settings and `settings` over it, and check everything.

    Raises InputError with every error of the file, and with those of its data set unless the
    search is detached: then the data may lie on the cluster alone.
    """
    from ..space.config_file import parse_settings, read_config
    from ..space.data import check_config_and_data

    raw = read_config(options.file, {**parse_settings(options.set), **settings}, options.name)
    folder = options.file.parent if options.file else Path()
    return check_config_and_data(
        raw, folder, options.allow, elsewhere=detached, without_space=without_space
    )
