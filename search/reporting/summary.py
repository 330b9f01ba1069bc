"""What `search`, `train` and `evaluate` print: progress, and at the end tables and figures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from trainer.text.escaping import printable

from ..ranking.gain_sentence import describe_gain
from ..ranking.results import SearchResult
from ..ranking.row import Row, state_in
from ..space.locations import WINNER
from ..space.space import Space
from ..study.environment_changes import describe_changes
from ..study.search_state import SearchState
from .console import lasting_console, program_name, text_console
from .cost_text import cost_lines
from .formatting import (
    column_headings,
    error_line,
    show_figure,
    show_mean,
    show_settings,
    show_value,
    trial_name,
)
from .progress import Lines, LiveTable, Progress

SIZES = ("small", "medium", "large")
HEADINGS = {
    **{"map": "AP", "map_50": "AP50", "map_75": "AP75"},
    **{f"map_{size}": f"AP ({size} boxes)" for size in SIZES},
    **{f"mar_{most}": f"AR ({most} a picture)" for most in (1, 10, 100)},
    **{f"mar_{size}": f"AR ({size} boxes)" for size in SIZES},
}
"""The 12 COCO figures, as a person reads them."""
WIDE = 100
"""Columns of a terminal from which on the table of trials has all its columns."""


def progress() -> Progress:
    """A live table on a terminal, plain lines elsewhere."""
    console = lasting_console()
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
    console.print(trials_table(result.rows, result.space, result.state, console.width))
    print_environment_changes(console, result.rows)
    console.print(cost_lines(result.costs))
    if result.reason:
        console.print(f"\nThe search stopped. {result.reason}")
    if result.state in {SearchState.INTERRUPTED, SearchState.DISK_FULL}:
        console.print(f"{result.state.capitalize()}. The same command again continues.")
    elif result.winner is None:
        console.print("No trial came to a result:")
        for row in result.rows:
            reason = error_line(row.record)
            end = f"{row.state}: {reason}" if reason else row.state
            console.print(f"  trial {row.record.number}: {end}")
    else:
        _print_winner(console, result, result.winner)
        _print_next(console, result)


def _print_winner(console: Console, result: SearchResult, row: Row) -> None:
    settings = show_settings(row, result.space)
    line = Text(f"\nWinner: trial {trial_name(row)}", style="bold")
    console.print(line.append(f" ({settings})", style="not bold") if settings else line)
    if gain := describe_gain(result.config, result.rows, row):
        console.print(gain)
    for other in result.rows:
        if other.rung < row.rung and not other.fresh and (other.map or 0) > (row.map or 0):
            console.print(
                f"Trial #{other.record.number} had {other.map:.3f}, but ran fewer epochs "
                f"({other.state}): it is not compared"
            )
    console.print(f"Measured from the export of trial {row.best_run.number}, in fp32:")
    console.print(_winner_figures(result.metrics))
    looks = result.metrics.get("test", {}).get("looks", 0)
    if looks:
        console.print(f"Test was evaluated {'once' if looks == 1 else f'{looks} times'}.")


def _print_next(console: Console, result: SearchResult) -> None:
    config = result.config
    console.print(f"\n{config.folder / WINNER} holds the weights, figures and pictures.")
    if config.report.is_file():
        console.print(f"{config.report} shows what won and why.")
    console.print("Next:")
    for line in (
        f"predict {config.name} PICTURES --out predicted",
        f"export {config.name} --out model",
        "ui",
    ):
        console.print(f"  {program_name()} {line}")


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


def trials_table(rows: list[Row], space: Space, state: str, width: int) -> Table:
    """The ranked trials of a search in this state; a narrow terminal has fewer columns."""
    wide = width >= WIDE
    confirmed = any(row.fresh for row in rows)
    figures = ("AP", "AP50", "epoch") if wide else ("AP",) if confirmed else ("AP", "epoch")
    fields = column_headings(space)
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("trial", no_wrap=wide)  # on a narrow terminal only this column wraps
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    if confirmed:
        table.add_column("fresh mean" if wide else "mean", justify="right", no_wrap=True)
    for heading in fields.values():
        shown_as = heading if wide else heading.replace("_", "\n")
        table.add_column(shown_as, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
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
            console.print(f"Trial #{row.record.number} continued {line}")


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
    console.print(table)


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
