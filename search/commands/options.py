"""Options that several commands share, and how a command joins the command line."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import Parser

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]
    Run = Callable[[argparse.Namespace], int]

DATA = (
    "a COCO json, YOLO's data.yaml, or a folder as COCO, Roboflow, VOC, YOLO, CVAT, FiftyOne, "
    "Label Studio or mmdetection lay it out"
)
MODEL = "a search's name, an exported folder, or a file of one"


def add_command(
    commands: "Commands", name: str, run: "Run", text: str, *, resumable: bool = False
) -> argparse.ArgumentParser:
    """Add a command to the command line.

    Args:
        commands: the subparsers of `unfreeze`.
        name: what a user types.
        run: does the work and returns the exit code; it imports heavy packages itself.
        text: the command's help.
        resumable: whether the same command continues after an interruption.
    """
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run, resumable=resumable)
    return command


def add_allow(command: argparse.ArgumentParser) -> None:
    """Add `--allow CODE`."""
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CODE",
        help="an error of `unfreeze check` that is none in this data set",
    )


def add_images(command: argparse.ArgumentParser) -> None:
    """Add `--images DIR`."""
    command.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="DIR",
        help="where the pictures are, or SPLIT=DIR, once a split; not for YOLO",
    )


def add_model(command: argparse.ArgumentParser) -> None:
    """Add the argument MODEL."""
    command.add_argument("model", metavar="MODEL", help=MODEL)


def add_json(command: argparse.ArgumentParser) -> None:
    """Add `--json`: one object on stdout, when the command fails too."""
    command.add_argument("--json", action="store_true", help="print one JSON object")


def add_cluster(command: argparse.ArgumentParser) -> None:
    """Add `--cluster X` to a command that can ask about a search on a cluster."""
    command.add_argument(
        "--cluster", metavar="X", help="of a search sent with --detach: asked there, as a job"
    )


def add_storage(command: argparse.ArgumentParser) -> None:
    """Add `--storage DIR`."""
    command.add_argument(
        "--storage",
        type=Path,
        default=Path("searches"),
        metavar="DIR",
        help="where searches lie; default: searches, in this folder",
    )
