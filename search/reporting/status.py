"""Where the searches of a folder stand: what `list` and `status` print, in text or as JSON."""

import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.config import InputError
from trainer.text.redaction import redacted

from ..ranking.costs import costs
from ..ranking.ranking import rank, winner
from ..ranking.row import Row, state_in
from ..space.config import SearchConfig
from ..space.locations import tracking_uri
from ..space.space import read_space
from ..study.environment_changes import describe_changes
from ..study.lock import is_held
from ..study.reading import list_searches, load_study, read_search_config
from ..study.search_state import SearchState
from ..study.study import Study
from .console import Prose, first_that_fits, print_json, text_console
from .formatting import cost_lines, error_line, show_figure, show_mean
from .progress import expected_trials
from .summary import print_environment_changes, print_trials


@dataclass(frozen=True)
class Standing:
    """Where one search stands."""

    config: SearchConfig
    study: Study
    state: str

    @cached_property
    def rows(self) -> list[Row]:
        """Its trials, ranked."""
        return rank(self.config, self.study.records.values())

    @property
    def best(self) -> Row | None:
        """The trial that leads, or has won."""
        return winner(self.rows)

    @property
    def trials(self) -> int:
        """Trials in all, those that have not begun included."""
        return expected_trials(self.config, self.study)

    @property
    def ended(self) -> int:
        """Trials that have ended."""
        return len(self.study.ended())

    @property
    def unfinished(self) -> int:
        """Trials that have epochs, but no end."""
        return sum(r.end is None and bool(r.reports) for r in self.study.records.values())


def _standing(config: SearchConfig) -> Standing:
    """Raises InputError for a search whose study cannot be read."""
    study = load_study(config)
    return Standing(config, study, current_state(config, study.state))


def current_state(config: SearchConfig, state: Any) -> str:
    """The search's state. One that says `running`, but that no process holds, was killed."""
    if is_held(config.folder):
        return "running"
    return "interrupted" if state == SearchState.RUNNING else str(state or "not begun")


# -- all searches of a folder ---------------------------------------------------------------------


def print_list(storage: Path, as_json: bool = False) -> None:
    """Print the searches in a folder, a line or an object each."""
    standings, damaged = _read_all(storage)
    if as_json:
        searches = [_entry(name, one) for name, one in standings.items()]
        searches += [{"name": name, "error": redacted(why)} for name, why in damaged.items()]
        print_json({"storage": str(storage.absolute()), "searches": searches})
        return
    console = text_console()
    if not standings and not damaged:
        console.print(f"no searches in {storage.absolute()}")
    if standings:
        _print_table(console, standings)
    for name, why in damaged.items():
        console.print(f"{name}: {redacted(why)}")


def _read_all(storage: Path) -> tuple[dict[str, Standing], dict[str, str]]:
    """The searches of a folder by name, and why others cannot be read."""
    standings, damaged = {}, {}
    for name in list_searches(storage):
        try:
            standings[name] = _standing(read_search_config(name, storage))
        except InputError as error:  # a damaged file, or a database that cannot be opened
            damaged[name] = error.errors[0]
        except OSError as error:
            damaged[name] = f"{error.filename or storage / name}: {error.strerror}"
    return standings, damaged


def _entry(name: str, standing: Standing) -> dict[str, Any]:
    best = standing.best
    return {
        "name": name,
        "state": standing.state,
        "trials": standing.trials,
        "ended": standing.ended,
        "best": best.record.number if best else None,
        "map": best.map if best else None,
        "mean_map": best.mean if best else None,
    }


def _print_table(console: Console, standings: dict[str, Standing]) -> None:
    """Print a line per search; two where a name is too long to stand beside the figures."""
    cells = {name: _list_cells(one) for name, one in standings.items()}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "state", "trials", "best AP"):
        table.add_column(heading)
    for name, row in cells.items():
        table.add_row(name, *row)
    table = first_that_fits(console, [table])
    if table.width is None or table.width <= console.width:
        console.print(table)
        return
    for name, (state, trials, shown) in cells.items():
        console.print(name)
        console.print(f"  {state}, {trials} trials, best AP {shown}")


def _list_cells(standing: Standing) -> tuple[str, str, str]:
    """State, trials and best AP of a search."""
    best, state = standing.best, standing.state
    shown = (show_mean(best) or show_figure(best.map)) if best else "-"
    no_result = ", no result" if best is None and state == SearchState.DONE else ""
    return state + no_result, f"{standing.ended} of {standing.trials}", shown


# -- one search -----------------------------------------------------------------------------------


def print_status(storage: Path, name: str, as_json: bool = False) -> None:
    """Print where one search stands."""
    config = read_search_config(name, storage)
    if as_json:
        print_json(_status(_standing(config)))
    else:
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
    standing = _standing(config)
    console.print(f"{config.name}: {standing.state}")
    console.print(f"tracking {redacted(tracking_uri(config.tracking))}")
    print_trials(console, standing.rows, read_space(config.space), standing.state)
    print_environment_changes(console, standing.rows)
    doing = "under way" if standing.state == SearchState.RUNNING else "interrupted"
    console.print(
        Prose(
            f"{standing.ended} of {standing.trials} trials ended, {standing.unfinished} {doing}\n"
            + cost_lines(costs(config, standing.study))
        )
    )


def _status(standing: Standing) -> dict[str, Any]:
    """The object of `unfreeze status --json`."""
    config = standing.config
    return {
        **_entry(config.name, standing),
        "unfinished": standing.unfinished,
        "folder": str(config.folder),
        "tracking": redacted(tracking_uri(config.tracking)),
        "ranking": [_trial(row, standing.state) for row in standing.rows],
        "costs": asdict(costs(config, standing.study)),
    }


def _trial(row: Row, search_state: str) -> dict[str, Any]:
    record = row.record
    return {
        "trial": record.number,
        "rank": row.rank,
        "origin": record.origin,
        "confirms": record.confirms,
        "state": state_in(search_state, row),
        "map": row.map,
        "map_50": record.best.map_50 if record.best else None,
        "epoch": record.best.epoch if record.best else None,
        "epochs": len(record.reports),
        "mean_map": row.mean,
        "values": row.values,
        "error": redacted(error_line(record)),
        "changes": describe_changes(record),
    }
