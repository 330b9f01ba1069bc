"""What `list` and `status` print: where the searches of a folder stand."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.config import InputError
from trainer.text.redaction import redacted

from ..ranking.costs import costs
from ..ranking.ranking import rank, winner
from ..space.config import SearchConfig
from ..space.locations import tracking_uri
from ..space.space import read_space
from ..study.lock import is_held
from ..study.reading import list_searches, load_study, read_search_config
from ..study.search_state import SearchState
from .console import text_console
from .cost_text import cost_lines
from .formatting import show_figure, show_mean
from .progress import expected_trials
from .summary import print_environment_changes, trials_table


def print_list(storage: Path) -> None:
    """Print the searches in a folder, one per line."""
    console = text_console()
    names = list_searches(storage)
    if not names:
        console.print(f"no searches in {storage.absolute()}", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "state", "trials", "best AP"):
        table.add_column(heading)
    for name in names:
        try:
            table.add_row(name, *_list_cells(read_search_config(name, storage)))
        except InputError as error:  # a damaged file, or a database that cannot be opened
            table.add_row(name, error.errors[0], "-", "-")
        except OSError as error:
            table.add_row(name, f"{error.filename or storage / name}: {error.strerror}", "-", "-")
    console.print(table)


def _list_cells(config: SearchConfig) -> tuple[str, str, str]:
    """State, trials and best AP of a search."""
    study = load_study(config)
    best = winner(rank(config, study.records.values()))
    trials = f"{len(study.ended())} of {expected_trials(config, study)}"
    shown = (show_mean(best) or show_figure(best.map)) if best else "-"
    state = _state(config, study.state)
    return (
        state + (", no result" if best is None and state == SearchState.DONE else ""),
        trials,
        shown,
    )


def _state(config: SearchConfig, state: Any) -> str:
    """The search's state. One that says `running`, but that no process holds, was killed."""
    if is_held(config.folder):
        return "running"
    return "interrupted" if state == SearchState.RUNNING else str(state or "not begun")


def print_status(storage: Path, name: str) -> None:
    """Print where one search stands."""
    config = read_search_config(name, storage)
    _print_status(text_console(), config)


def watch_status(storage: Path, name: str, seconds: float = 2.0) -> None:
    """Print where one search stands every few seconds, until no process runs it."""
    config = read_search_config(name, storage)
    console = text_console()
    while is_held(config.folder):
        console.clear()
        _print_status(console, config)
        time.sleep(seconds)
    console.clear()
    _print_status(console, config)


def _print_status(console: Console, config: SearchConfig) -> None:
    study = load_study(config)
    space = read_space(config.space)
    rows = rank(config, study.records.values())
    state = _state(config, study.state)
    console.print(f"{config.name}: {state}, tracking {redacted(tracking_uri(config.tracking))}")
    console.print(trials_table(rows, space, state, console.width))
    print_environment_changes(console, rows)
    unfinished = sum(r.end is None and bool(r.reports) for r in study.records.values())
    trials = expected_trials(config, study)
    doing = "under way" if state == SearchState.RUNNING else "interrupted"
    console.print(f"{len(study.ended())} of {trials} trials ended, {unfinished} {doing}")
    console.print(cost_lines(costs(config, study)))
