"""What the commands print."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from trainer.config import BadInput
from trainer.text.escaping import printable
from trainer.text.redaction import redacted

from ..ranking.costs import Costs, costs, saved
from ..ranking.gain import describe_gain
from ..ranking.results import (
    Row,
    SearchResult,
    columns,
    rank,
    show,
    show_mean,
    state_in,
    trial_name,
    winner,
)
from ..space.config import SearchConfig, tracking_uri
from ..space.space import Space, read_space
from ..study.environment_changes import stretches
from ..study.lock import is_held
from ..study.reading import begun, begun_study, read_search
from .console import lasting_console, program, text_console
from .progress import Lines, LiveTable, Progress, wanted

SIZES = ("small", "medium", "large")
HEADINGS = {
    **{"map": "AP", "map_50": "AP50", "map_75": "AP75"},
    **{f"map_{size}": f"AP ({size} boxes)" for size in SIZES},
    **{f"mar_{most}": f"AR ({most} a picture)" for most in (1, 10, 100)},
    **{f"mar_{size}": f"AR ({size} boxes)" for size in SIZES},
}
"""The 12 COCO figures, as a person reads them."""
WHOLE_TABLE = 100
"""Columns of a terminal from which on the table shows all it has."""


def progress() -> Progress:
    """A live table on a terminal, plain lines elsewhere."""
    console = lasting_console()
    return LiveTable(console) if console.is_terminal else Lines(console)


def lines() -> Lines:
    """Plain lines."""
    return Lines(lasting_console())


def bar(files: list[Path]) -> Iterable[Path]:
    """The files one by one, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(
        files, "predicting", console=console, transient=True, disable=not console.is_terminal
    )


def print_result(result: SearchResult) -> None:
    """The ranked table, the winner with its figures, the costs, and the next commands."""
    console = text_console()
    config = result.config
    console.print(_table(result.rows, result.space, result.state, console.width))
    _print_stretches(console, result.rows)
    console.print(_costs(result.costs))
    if result.reason:
        console.print(f"\nThe search stopped. {result.reason}")
    if result.state in {"interrupted", "disk full"}:
        console.print(f"{result.state.capitalize()}. The same line again continues.")
        return
    if result.winner is None:
        console.print("No trial came to a result:")
        for line in _ends(result.rows):
            console.print(f"  {line}")
        return
    _print_winner(console, result)
    folder = config.folder / "winner"
    console.print(f"\n{folder} holds the weights, figures and pictures.")
    if config.report.is_file():
        console.print(f"{config.report} tells what won and why.")
    console.print("Next:")
    for line in (
        f"predict {config.name} PICTURES --out predicted",
        f"export {config.name} --out model",
        "ui",
    ):
        console.print(f"  {program()} {line}")


def _print_winner(console: Console, result: SearchResult) -> None:
    row, config = result.winner, result.config
    assert row is not None
    settings = ", ".join(
        f"{heading} {show(row.values[name])}"
        for name, heading in columns(result.space).items()
        if name in row.values
    )
    line = Text(f"\nWinner: trial {trial_name(row)}", style="bold")
    console.print(line.append(f" ({settings})", style="not bold") if settings else line)
    if gain := describe_gain(config, result.rows, row):
        console.print(gain)
    for other in result.rows:
        if other.rung < row.rung and not other.fresh and (other.map or 0) > (row.map or 0):
            console.print(
                f"Trial #{other.record.number} had {other.map:.3f}, but ran fewer epochs "
                f"({other.state}): it is not compared"
            )
    run = row.best_run.number
    console.print(f"Measured from the export of trial {run}, in fp32:")
    console.print(_figures(result.metrics))
    looks = result.metrics.get("test", {}).get("looks", 0)
    if looks:
        console.print(f"Test was looked at {'once' if looks == 1 else f'{looks} times'}.")


def _figures(metrics: dict[str, Any]) -> Table:
    """A row a figure, a column a split."""
    splits = [name for name in ("val", "test") if name in metrics]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", *splits):
        table.add_column(heading, justify="right" if heading else "left")
    for name in ("map", "map_50", "map_75"):
        cells = (_figure(metrics[split]["figures"][name]) for split in splits)
        table.add_row(HEADINGS[name], *cells)
    if splits and metrics[splits[0]].get("at_detections"):
        cells = (_figure(metrics[split].get("at_detections", {}).get("map")) for split in splits)
        table.add_row(f"AP, {metrics[splits[0]]['detections']} a picture", *cells)
    for name in metrics[splits[0]]["per_class"] if splits else ():
        cells = (_figure(metrics[split]["per_class"].get(name)) for split in splits)
        table.add_row(f"AP {printable(name)}", *cells)
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(rows: list[Row], space: Space, state: str, width: int) -> Table:
    wide = width >= WHOLE_TABLE
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    heads = columns(space)
    confirmed = any(row.fresh for row in rows)
    figures = ("AP", "AP50", "epoch") if wide else ("AP",) if confirmed else ("AP", "epoch")
    table.add_column("", justify="right")
    table.add_column("trial", no_wrap=wide)  # it alone may take a second line
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    if confirmed:
        table.add_column("fresh mean" if wide else "mean", justify="right", no_wrap=True)
    for heading in heads.values():
        shown_as = heading if wide else heading.replace("_", "\n")
        table.add_column(shown_as, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for row in rows:
        best = row.record.best
        shown = {"AP": "-", "AP50": "-", "epoch": "-"}
        if best:
            shown = {
                "AP": f"{best.map:.3f}",
                "AP50": f"{best.map_50:.3f}",
                "epoch": str(best.epoch),
            }
        table.add_row(
            str(row.rank) if row.record.confirms is None else "",
            trial_name(row),
            *(shown[heading] for heading in figures),
            *([show_mean(row)] if confirmed else []),
            *(show(row.values.get(name)) for name in heads),
            state_in(state, row),
            style="bold" if row.rank == 1 and row.record.confirms is None else None,
        )
    return table


def _ends(rows: list[Row]) -> list[str]:
    found = []
    for row in rows:
        last = (row.record.text.strip().splitlines() or [""])[-1]
        found.append(f"trial {row.record.number}: {row.state}" + (f": {last}" if last else ""))
    return found


def _print_stretches(console: Console, rows: list[Row]) -> None:
    """Which trials went on in another environment, so that their bits are nobody else's."""
    for row in rows:
        for line in stretches(row.record):
            console.print(f"Trial #{row.record.number} went on {line}")


def _costs(spent: Costs) -> str:
    hours = f"{spent.cpu_hours:.2f} CPU-hours"
    if spent.gpu_hours:
        hours = f"{spent.gpu_hours:.2f} GPU-hours"
    trials = f"{spent.trials} trial{'' if spent.trials == 1 else 's'}"
    line = f"{trials}; {spent.run} epochs trained in {hours}, {spent.forked} forked"
    if spent.stopped:
        line += f", {spent.stopped} not run since ASHA stopped their trials"
    lines = [line]
    if spent.read:
        lines.append(f"frozen stages read from files for {spent.read:,} pictures, not run again")
    if line := saved(spent):
        lines.append(line)
    return "\n".join(lines)


def print_metrics(split: str, metrics: dict[str, Any]) -> None:
    """The 12 COCO figures, and AP a class."""
    console = text_console()
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in metrics["figures"].items():
        table.add_row(HEADINGS[name], "-" if value is None else f"{value:.4f}")
    for name, value in metrics.get("at_detections", {}).items():
        heading = HEADINGS.get(name, "AR") + f", {metrics['detections']} a picture"
        table.add_row(heading, "-" if value is None else f"{value:.4f}")
    for name, value in metrics["per_class"].items():
        table.add_row(f"AP {printable(name)}", "-" if value is None else f"{value:.4f}")
    console.print(f"On {split}:")
    console.print(table)


def print_list(storage: Path) -> None:
    """The searches in a folder, a line each."""
    console = text_console()
    names = begun(storage)
    if not names:
        console.print(f"no searches in {storage.absolute()}", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "state", "trials", "best AP"):
        table.add_column(heading)
    for name in names:
        try:
            table.add_row(name, *_listed(read_search(name, storage)))
        except BadInput as error:  # a damaged file; a database that is away, or wants its password
            table.add_row(name, error.errors[0], "-", "-")
        except OSError as error:
            table.add_row(name, f"{error.filename or storage / name}: {error.strerror}", "-", "-")
    console.print(table)


def _listed(config: SearchConfig) -> tuple[str, str, str]:
    """State, trials and best AP of a search."""
    study = begun_study(config)
    best = winner(rank(config, study.records.values()))
    ended = f"{len(study.ended())} of {wanted(config, study)}"
    shown = (show_mean(best) or _figure(best.map)) if best else "-"
    state = _state(config, study.get("state"))
    return state + (", no result" if best is None and state == "done" else ""), ended, shown


def _state(config: SearchConfig, state: Any) -> str:
    """A search that somebody holds runs; one that says so, though nobody does, was killed."""
    if is_held(config.folder):
        return "running"
    return "interrupted" if state == "running" else str(state or "not begun")


def print_status(storage: Path, name: str) -> None:
    """Where one search stands."""
    config = read_search(name, storage)
    _print_status(text_console(), config)


def watch_status(storage: Path, name: str, seconds: float = 2.0) -> None:
    """The same, again and again, until nobody runs the search."""
    config = read_search(name, storage)
    console = text_console()
    while is_held(config.folder):
        console.clear()
        _print_status(console, config)
        time.sleep(seconds)
    console.clear()
    _print_status(console, config)


def _print_status(console: Console, config: SearchConfig) -> None:
    study = begun_study(config)
    space = read_space(config.space)
    rows = rank(config, study.records.values())
    state = _state(config, study.get("state"))
    console.print(f"{config.name}: {state}, tracking {redacted(tracking_uri(config.tracking))}")
    console.print(_table(rows, space, state, console.width))
    running = sum(r.end is None and bool(r.reports) for r in study.records.values())
    of = wanted(config, study)
    doing = "under way" if state == "running" else "interrupted"
    _print_stretches(console, rows)
    console.print(f"{len(study.ended())} of {of} trials ended, {running} {doing}")
    console.print(_costs(costs(config, study)))
