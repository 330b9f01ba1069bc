"""What `search`, `train` and `evaluate` print: progress, and at the end tables and figures."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from trainer.text.escaping import printable

from ..ranking.gain_sentence import describe_gain
from ..ranking.results import SearchResult
from ..ranking.row import Row, state_in
from ..space.config import SearchConfig
from ..space.locations import WINNER
from ..space.space import Space
from ..study.environment_changes import describe_changes
from ..study.search_state import SearchState
from .console import Prose, first_that_fits, lasting_console, program_name, text_console
from .formatting import (
    column_headings,
    cost_lines,
    error_line,
    show_figure,
    show_mean,
    show_settings,
    show_value,
    trial_name,
)
from .live_table import LiveTable, NotebookTable
from .progress import Lines, Progress

SIZES = ("small", "medium", "large")
HEADINGS = {
    **{"map": "AP", "map_50": "AP50", "map_75": "AP75"},
    **{f"map_{size}": f"AP ({size} boxes)" for size in SIZES},
    **{f"mar_{most}": f"AR ({most} a picture)" for most in (1, 10, 100)},
    **{f"mar_{size}": f"AR ({size} boxes)" for size in SIZES},
}
"""The 12 COCO figures, as a person reads them."""
UNFINISHED = {SearchState.INTERRUPTED, SearchState.DISK_FULL}
"""States of a search that has no winner before the same command continues it."""


def progress() -> Progress:
    """A live table on a terminal or in a notebook, plain lines elsewhere."""
    console = lasting_console()
    if Console().is_jupyter:
        return NotebookTable(console)
    return LiveTable(console) if console.is_terminal else Lines(console)


def lines() -> Lines:
    """Plain lines."""
    return Lines(lasting_console())


def progress_bar(files: list[Path]) -> Iterable[Path]:
    """The files one by one, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(
        files, "predicting", console=console, transient=True, disable=not console.is_terminal
    )


# -- a search -------------------------------------------------------------------------------------


def print_result(result: SearchResult) -> None:
    """Print the ranked table, the costs, the winner with its figures, and the next commands."""
    console = text_console()
    describe_result(result, console)
    if result.winner is not None and result.state not in UNFINISHED:
        _print_next(console, result)


def describe_result(result: SearchResult, console: Console) -> None:
    """Write the ranked table, the costs, and the winner with its figures."""
    print_trials(console, result.rows, result.space, result.state)
    print_environment_changes(console, result.rows)
    console.print(Prose(cost_lines(result.costs)))
    if result.reason:
        console.print(Prose(f"\nThe search stopped. {result.reason}"))
    if result.state == SearchState.RUNNING:
        console.print("It is running.")
    elif result.state in UNFINISHED:
        console.print(Prose(f"{result.state.capitalize()}. The same command again continues."))
    elif result.winner is None:
        console.print("No trial came to a result:")
        for row in result.rows:
            reason = error_line(row.record)
            end = f"{row.state}: {reason}" if reason else row.state
            console.print(Prose(f"trial {row.record.number}: {end}", indent=2))
    else:
        _print_winner(console, result, result.winner)


def _print_winner(console: Console, result: SearchResult, row: Row) -> None:
    settings = show_settings(row, result.space)
    line = Text(f"\nWinner: trial {trial_name(row)}", style="bold")
    console.print(Prose(line.append(f" ({settings})", style="not bold") if settings else line))
    if gain := describe_gain(result.config, result.rows, row):
        console.print(Prose(gain))
    for other in result.rows:
        if other.rung < row.rung and not other.fresh and (other.map or 0) > (row.map or 0):
            console.print(
                Prose(
                    f"Trial #{other.record.number} had {other.map:.3f}, but ran fewer epochs "
                    f"({other.state}): it is not compared"
                )
            )
    console.print(f"Measured from the export of trial {row.best_run.number}, in fp32:")
    console.print(first_that_fits(console, [_winner_figures(result.metrics)]))
    looks = result.metrics.get("test", {}).get("looks", 0)
    if looks:
        console.print(f"Test was evaluated {'once' if looks == 1 else f'{looks} times'}.")


def _print_next(console: Console, result: SearchResult) -> None:
    """Print where the result lies, and the next commands; each path stands at a line's end."""
    config = result.config
    console.print(f"\nWeights, figures and pictures: {_relative(config.folder / WINNER)}")
    if config.report.is_file():
        console.print(f"What won and why: {_relative(config.report)}")
    console.print("Next:")
    for line in (
        f"predict {_model(config)} PICTURES --out predicted",
        f"export {_model(config)} --out model",
        "ui",
    ):
        console.print(f"  {program_name()} {line}")


def _model(config: SearchConfig) -> str:
    """What to type for MODEL: the search's name, where the default storage holds it."""
    if config.folder == Path("searches").absolute() / config.name:
        return config.name
    return quote(str(_relative(config.folder / WINNER)))


def _relative(path: Path) -> Path:
    """The path as seen from the working folder, where that holds it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _winner_figures(metrics: dict[str, Any]) -> Table:
    """The winner's AP, with a row for each figure and class and a column for each split."""
    splits = [name for name in ("val", "test") if name in metrics]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", *splits):
        table.add_column(heading, justify="right" if heading else "left")
    for name in ("map", "map_50", "map_75"):
        cells = (show_figure(metrics[split]["figures"][name]) for split in splits)
        table.add_row(HEADINGS[name], *cells)
    if splits and metrics[splits[0]].get("at_detections"):
        cells = (
            show_figure(metrics[split].get("at_detections", {}).get("map")) for split in splits
        )
        table.add_row(f"AP, {metrics[splits[0]]['detections']} a picture", *cells)
    for name in metrics[splits[0]]["per_class"] if splits else ():
        cells = (show_figure(metrics[split]["per_class"].get(name)) for split in splits)
        table.add_row(f"AP {printable(name)}", *cells)
    return table


def print_trials(console: Console, rows: list[Row], space: Space, state: str) -> None:
    """Print the ranked trials of a search in this state.

    A narrow terminal has shorter headings, then fewer columns; what it lacks is named.
    """
    fields = column_headings(space)
    narrow = (
        _trials_table(rows, dict(list(fields.items())[:count]), state, wide=False)
        for count in range(len(fields), -1, -1)
    )
    wide = _trials_table(rows, fields, state, wide=True)
    table = first_that_fits(console, chain([wide], narrow))
    console.print(table)
    shown = {str(column.header) for column in table.columns}
    hidden = [h for h in fields.values() if not {h, _narrow(h)} & shown]
    if hidden:
        console.print(Prose(f"Not shown in a window of this width: {', '.join(hidden)}."))


def _trials_table(rows: list[Row], fields: dict[str, str], state: str, wide: bool) -> Table:
    """The table with a column for each of these searched fields, given with their headings."""
    confirmed = any(row.fresh for row in rows)
    figures = ("AP", "AP50", "epoch") if wide else ("AP",) if confirmed else ("AP", "epoch")
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("trial")
    for heading in figures:
        table.add_column(heading, justify="right")
    if confirmed:
        table.add_column("fresh mean" if wide else "mean", justify="right")
    for heading in fields.values():
        table.add_column(heading if wide else _narrow(heading), justify="right")
    table.add_column("state")
    for row in rows:
        searched = row.record.confirms is None
        table.add_row(
            str(row.rank) if searched else "",
            trial_name(row),
            *(_best_figure(row, heading) for heading in figures),
            *([show_mean(row)] if confirmed else []),
            *(show_value(row.values.get(name)) for name in fields),
            state_in(state, row),
            style="bold" if row.rank == 1 and searched else None,
        )
    return table


def _narrow(heading: str) -> str:
    """A heading on several lines, one a word."""
    return heading.replace("_", "\n")


def _best_figure(row: Row, heading: str) -> str:
    """AP, AP50 or number of a trial's best epoch."""
    best = row.record.best
    if best is None:
        return "-"
    return (
        str(best.epoch)
        if heading == "epoch"
        else show_figure(best.map if heading == "AP" else best.map_50)
    )


def print_environment_changes(console: Console, rows: list[Row]) -> None:
    """Print which trials continued in another environment: they cannot be repeated to the bit."""
    for row in rows:
        for line in describe_changes(row.record):
            console.print(Prose(f"Trial #{row.record.number} continued {line}"))


# -- an evaluation --------------------------------------------------------------------------------


def print_metrics(split: str, metrics: dict[str, Any]) -> None:
    """Print the 12 COCO figures, and AP of each class."""
    console = text_console()
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in metrics["figures"].items():
        table.add_row(HEADINGS[name], _four_digits(value))
    for name, value in metrics.get("at_detections", {}).items():
        heading = HEADINGS.get(name, "AR") + f", {metrics['detections']} a picture"
        table.add_row(heading, _four_digits(value))
    for name, value in metrics["per_class"].items():
        table.add_row(f"AP {printable(name)}", _four_digits(value))
    console.print(f"On {split}:")
    console.print(first_that_fits(console, [table]))


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
