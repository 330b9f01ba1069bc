"""The result of a search."""

from dataclasses import dataclass
from typing import Any

from ..space.config import SearchConfig
from ..space.space import Space
from .costs import Costs
from .row import Row


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
