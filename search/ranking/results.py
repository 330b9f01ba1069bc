"""The result of a search."""

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

from ..space.config import SearchConfig
from ..space.space import Space
from .costs import Costs
from .row import Row, state_in

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["trial", "rank", "state", "map", "map_50", "map_75", "best_epoch", "epochs", "seconds"]
COLUMNS += ["confirms"]
"""Of the table of trials, before the searched fields."""


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: its trials, the winner, and what it cost."""

    config: SearchConfig
    space: Space
    rows: list[Row]
    """All trials, best first."""
    winner: Row | None
    metrics: dict[str, Any]
    """metrics.json of the winner: by split `figures` and `per_class`, measured from its export."""
    costs: Costs
    state: str
    """A SearchState, or `not begun`."""
    reason: str = ""
    """Why it stopped early; empty if it did not."""


def to_frame(result: SearchResult) -> "pd.DataFrame":
    """A row for each trial, best first, by the trial's number.

    `map`, `map_50` and `map_75` are of its best epoch on val, which is `best_epoch`. `epochs`
    counts its epochs, `seconds` what those took that it ran itself. `confirms` is the trial that it
    trains again with another seed. Then comes a column for each searched field.
    """
    import pandas as pd  # half a second, which a command that lists searches does not need

    columns = {
        name: [row.values.get(name) for row in result.rows]
        for name in dict.fromkeys(dimension.name for dimension in result.space)
    }
    frame = pd.DataFrame(
        [_cells(row, result.state) for row in result.rows], columns=COLUMNS
    ).assign(**columns)
    return frame.astype({"best_epoch": "Int64", "confirms": "Int64"}).set_index("trial")


def _cells(row: Row, search_state: str) -> dict[str, Any]:
    record, best = row.record, row.record.best
    reports = list(record.reports.values())
    return {
        "trial": record.number,
        "rank": row.rank,
        "state": state_in(search_state, row),
        "map": best.map if best else nan,
        "map_50": best.map_50 if best else nan,
        "map_75": best.map_75 if best else nan,
        "best_epoch": best.epoch if best else None,
        "epochs": len(reports),
        "seconds": sum(report.seconds for report in reports if not report.forked),
        "confirms": record.confirms,
    }
