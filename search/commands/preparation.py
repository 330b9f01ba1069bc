"""What comes before a search: `unfreeze init`, `check` and `models`."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .options import DATA, add_allow, add_command, add_images, add_json

if TYPE_CHECKING:
    from .options import Commands


def add_init(commands: "Commands") -> None:
    """Add `unfreeze init`."""
    init = add_command(commands, "init", _init, "write a commented search.yaml for a data set")
    init.add_argument("data", type=Path, metavar="DATA", help=DATA)
    init.add_argument(
        "--out",
        type=Path,
        default=Path("search.yaml"),
        metavar="FILE",
        help="default: search.yaml; - prints it",
    )
    add_allow(init)
    add_images(init)


def _init(options: argparse.Namespace) -> int:
    from ..reporting.console import print_plain
    from .init import STDOUT, write_search

    say = partial(print_plain, error=options.out == STDOUT)
    write_search(options.data, options.out, say, options.allow, options.images)
    return 0


def add_check(commands: "Commands") -> None:
    """Add `unfreeze check`."""
    check = add_command(commands, "check", _check, "find everything that is wrong with a data set")
    check.add_argument("data", type=Path, metavar="DATA", help=f"{DATA}, or a search.yaml")
    add_json(check)
    check.add_argument("--out", type=Path, metavar="DIR", help="draw the data set into DIR")
    check.add_argument(
        "--no-pictures", action="store_true", help="check the annotation files alone"
    )
    add_allow(check)
    add_images(check)


def _check(options: argparse.Namespace) -> int:
    from .check import check_data

    good = check_data(
        options.data,
        options.allow,
        options.images,
        options.out,
        not options.no_pictures,
        options.json,
    )
    return 0 if good else 2


def add_models(commands: "Commands") -> None:
    """Add `unfreeze models`."""
    models = add_command(commands, "models", _models, "backbones and detectors, and their stages")
    models.add_argument("model_name", nargs="?", metavar="NAME", help="of one; default: all tested")
    add_json(models)


def _models(options: argparse.Namespace) -> int:
    from .models import print_models

    print_models(options.model_name, options.json)
    return 0
