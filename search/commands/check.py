"""The work of `unfreeze check`: what a data set holds, and everything that is wrong with it."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trainer.config import Data, InputError, Model
from trainer.config_errors import parse_valid_fields
from trainer.data.canvas import cache_folder
from trainer.data.checks.examine import Examined, examine
from trainer.data.dataset import Picture
from trainer.data.finding_messages import CODES, allowable
from trainer.data.findings import Finding
from trainer.data.loading import resolve_data
from trainer.text.counts import counted
from trainer.text.escaping import printable

from ..reporting.console import Prose, print_json, text_console
from ..space.data import find_data, with_allowed_codes, with_images
from .errors import writing

SEVERITIES = {"error": "bold red", "warning": "yellow", "note": "dim"}
"""In the order of the report, with their colours."""


def check_data(
    place: Path,
    allow: list[str],
    images: list[str],
    out: Path | None,
    pictures: bool,
    as_json: bool,
) -> bool:
    """Examine a data set, print a report, and draw the data set into `out`.

    Args:
        place: the data set, DATA on the command line.
        allow: codes of errors that are none in this data set.
        images: folders of the pictures, each DIR or SPLIT=DIR.
        out: a folder for the drawing, made where it is missing; None draws nothing.
        pictures: whether to decode the pictures too.
        as_json: whether the report is JSON.

    Returns:
        Whether the data set has no errors.

    Raises:
        InputError: there is no data set, or `out` cannot be written.
    """
    if out is not None:
        _check_out(out)
    model = model_of(place)
    with progress_bar() as step:
        examined = examine_data(find_data(place), allow, images, pictures, model, step)
    if not as_json:
        describe_findings(examined, text_console())
    if out is not None:
        _draw(examined, model, out)
    if as_json:  # last: a failure before it prints JSON too
        print_json(_as_json(examined))
    return not examined.errors


def examine_data(
    data: Data | str,
    allow: Sequence[str],
    images: Sequence[str],
    pictures: bool,
    model: Model,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> Examined:
    """Examine a data set with the codes and folders that a user gives.

    Args:
        data: the data set; `digits` is the embedded one.
        allow: codes of errors that are none in it.
        images: folders of its pictures, each DIR or SPLIT=DIR.
        pictures: whether to decode the pictures too.
        model: its canvas and its detections are what objects are measured by.
        step: called with how many more pictures are done, and how many there are.

    Raises:
        InputError: its images cannot be given so, or a code is unknown.
    """
    resolved = with_allowed_codes(resolve_data(with_images(data, images), cache_folder()), allow)
    return examine(resolved, cache_folder(), pictures=pictures, step=step, model=model)


def _check_out(out: Path) -> None:
    """Raise InputError if the folder cannot be made or written, before pictures are read."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError([f"--out {out}: {existing} is no folder"])
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError([f"--out {out}: {existing} may not be written"])


def model_of(place: Path) -> Model:
    """The model whose canvas the boxes are measured on: a YAML's `model:` part, else the default.

    Invalid fields of the YAML are left out.
    """
    if place.suffix not in {".yaml", ".yml"}:
        return Model()
    from ..space.config_file import read_yaml

    model, _ = parse_valid_fields(Model, read_yaml(place).get("model") or {})
    return model or Model()


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar of decoded pictures on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, of: None
        return
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("pictures", total=None)

        def step(done: int, of: int) -> None:
            progress.update(task, total=of, advance=done)

        yield step


def _as_json(examined: Examined) -> dict[str, Any]:
    return {
        "format": examined.format,
        "splits": examined.counts,
        "categories": [asdict(category) for category in examined.categories],
        "errors": _count(examined, "error"),
        "warnings": _count(examined, "warning"),
        "findings": [
            {
                **asdict(finding),
                "what": CODES[finding.code].text,
                "fix": CODES[finding.code].fix,
                "mend": CODES[finding.code].fix,  # the key of the first versions
                "allowable": finding.code in allowable(),
            }
            for finding in _ordered(examined)
        ],
        "notes": examined.notes,
    }


def _count(examined: Examined, severity: str) -> int:
    return sum(finding.severity == severity for finding in examined.findings)


def _ordered(examined: Examined) -> list[Finding]:
    order = list(SEVERITIES)
    return sorted(examined.findings, key=lambda finding: order.index(finding.severity))


def describe_findings(examined: Examined, console: Console) -> None:
    """Write what a data set holds, and each finding with its places and what to do."""
    _print_contents(examined, console)
    for finding in _ordered(examined):
        _print_finding(finding, console)
    counts = [counted(_count(examined, kind), kind, zero="no") for kind in ("error", "warning")]
    console.print(f"\n{', '.join(counts)}")
    codes = sorted({finding.code for finding in examined.errors} & allowable())
    if codes:
        console.print(Prose("If one is no error in your data, allow it here, in search and train:"))
        console.print("  " + " ".join(f"--allow {code}" for code in codes))


def _print_contents(examined: Examined, console: Console) -> None:
    counts = "; ".join(
        f"{name} {count['pictures']} pictures, {count['boxes']} boxes"
        for name, count in examined.counts.items()
    )
    console.print(Prose(f"{examined.format}{': ' if counts else ''}{counts}"))
    if examined.categories:
        names = ", ".join(category.name for category in examined.categories)
        count = counted(len(examined.categories), "class", "classes")
        console.print(Prose(printable(f"{count}: {names}")))


def _print_finding(finding: Finding, console: Console) -> None:
    code = CODES[finding.code]
    console.print()
    head = Text.assemble(
        (finding.severity, SEVERITIES[finding.severity]),
        f" {finding.code}, {finding.split}: ",
        (f"{finding.count} " if finding.count > 1 else "") + code.text,
    )
    console.print(Prose(head))
    for line in filter(None, [f"in {finding.source}", *map(str, finding.places)]):
        console.print(f"  {line}")  # it holds a path: unwrapped, to be copied
    if more := finding.count - len(finding.places):
        console.print(f"  and {more} more")
    if finding.hint:
        console.print(Prose(printable(finding.hint), indent=2))
    if code.fix:
        allowed = f"; allowed: {code.allowed}" if code.allowed else ""
        console.print(Prose(f"-> {code.fix}{allowed}", indent=2))


def _draw(examined: Examined, model: Model, out: Path) -> None:
    splits = [split for split in examined.splits.values() if split.pictures]
    if not splits:
        print("there is no picture to draw", file=sys.stderr)
        return
    from trainer.data.checks.overview import OVERVIEW, draw_overview

    with writing("--out", out):
        out.mkdir(parents=True, exist_ok=True)
    draw_overview(splits, model, out / OVERVIEW, _pictures_with_findings(examined))
    print(f"wrote {out / OVERVIEW}", file=sys.stderr)


def _pictures_with_findings(examined: Examined) -> list[tuple[str, Picture]]:
    """Pictures with errors and warnings, each with its code.

    The first picture of every code comes first, then the second of every code, and so on.
    """
    pictures = {(s.name, p.id): p for s in examined.splits.values() for p in s.pictures}
    by_finding = [
        [
            (finding.code, key)
            for place in finding.places
            if (key := (finding.split, place.image)) in pictures
        ]
        for finding in _ordered(examined)
        if finding.severity != "note"
    ]
    in_order = dict.fromkeys(pair for row in zip_longest(*by_finding) for pair in row if pair)
    return [(code, pictures[key]) for code, key in in_order]
