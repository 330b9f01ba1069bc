"""The `unfreeze` command: its command line, and an exit code for every error.

It imports only what help needs. Each command imports heavy packages itself when it runs.
"""

import argparse
import io
import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from . import preparation, searches, trained_model, training
from .completion import add_completion
from .errors import Parser, UsageError, as_json, explain

DESCRIPTION = """\
How deep should you unfreeze? Unfreeze finds out, and shows you: it searches for the best way to
fine-tune a pretrained object detector on your own pictures."""
COMMANDS = (
    preparation.add_init,
    preparation.add_check,
    preparation.add_models,
    training.add_search,
    training.add_train,
    searches.add_list,
    searches.add_status,
    searches.add_stop,
    searches.add_report,
    searches.add_clean,
    trained_model.add_export,
    trained_model.add_evaluate,
    trained_model.add_predict,
    searches.add_ui,
)
"""What adds each command, in the order of the help."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad input.
    """
    try:
        options = parser().parse_args(arguments)
    except UsageError as error:
        if "--json" in (sys.argv if arguments is None else arguments):
            print(as_json([error.message]))
        raise
    _prepare_process()
    if conflict := _package_conflict():
        return _fail(options, [conflict], 1)
    try:
        return int(options.run(options))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        explained = explain(error, options.resumable)
        if explained is None:  # a bug
            _fail(options, [f"{type(error).__name__}: {error}"], 1)
            raise
        return _fail(options, *explained)


def parser() -> argparse.ArgumentParser:
    """The command line with all its commands."""
    top = Parser(prog="unfreeze", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"unfreeze {version('unfreeze')}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    add_completion(commands, top)
    return top


def _prepare_process() -> None:
    """Set up output, logging and MLflow's telemetry before a command imports anything."""
    from ..reporting.console import log_plainly

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack letters of a file's name
            stream.reconfigure(errors="backslashreplace")
    log_plainly()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported


def _package_conflict() -> str:
    """An error line where another installed package hides one of ours, else an empty one."""
    root = Path(__file__).parents[2]
    for name in ("trainer", "clusters"):
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).parents[1] != root:
            place = spec.origin if spec else "nowhere"
            return (
                f"another package named {name} is in the way ({place}); install Unfreeze in a "
                "separate environment"
            )
    return ""


def _fail(options: argparse.Namespace, lines: list[str], status: int) -> int:
    from ..reporting.console import print_plain

    for line in lines:
        print_plain(line, error=True)
    if getattr(options, "json", False):
        print(as_json(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
