"""What a search came to."""

from dataclasses import dataclass
from typing import Any

from ..space.config import SearchConfig
from ..space.space import Space
from .costs import Costs
from .row import Row


@dataclass(frozen=True)
class SearchResult:
    """What a search came to."""

    config: SearchConfig
    space: Space
    rows: list[Row]
    """All trials, best first."""
    winner: Row | None
    metrics: dict[str, Any]
    """The winner's figures, measured from its export: by split, `figures` and `per_class`."""
    costs: Costs
    state: str
    """`done`, `out of time`, `stopped`, `interrupted`, `failed` or `disk full`."""
    reason: str = ""
    """Why it failed."""
