"""Facts about a search that its study stores: its state, its winner, what `auto` was resolved to.

They are user attributes of the Optuna study. Their stored names do not change, so that studies of
earlier versions stay readable.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:  # commands use SearchState and should start fast
    import optuna

T = TypeVar("T")


class SearchState(StrEnum):
    """The state of a search, as its last driver left it."""

    RUNNING = "running"
    """A driver runs it; if none does, its driver was killed."""
    DONE = "done"
    """All its trials have ended."""
    OUT_OF_TIME = "out of time"
    """`search.time_budget` is used up."""
    STOPPED = "stopped"
    """`unfreeze stop` ended it."""
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    """Too many trials failed or were lost."""
    DISK_FULL = "disk full"


class StoredFact(Generic[T]):
    """A property whose value the Optuna study stores; assigning to it writes at once.

    Args:
        name: Its name in the Optuna study.
        default: The value where nothing is stored.
        read: Makes the value from what is stored, which is plain JSON.
    """

    def __init__(self, name: str, default: T, read: Callable[[Any], T] | None = None) -> None:
        self._name = name
        self._default = default
        self._read = read

    def __get__(self, facts: "SearchFacts", owner: type) -> T:
        stored = facts.optuna.user_attrs.get(self._name)
        if stored is None:
            return self._default
        value: T = self._read(stored) if self._read else stored
        return value

    def __set__(self, facts: "SearchFacts", value: T) -> None:
        facts.optuna.set_user_attr(self._name, value)


class SearchFacts:
    """What a study says about its search; see `Study` for what it says about the trials."""

    optuna: "optuna.Study"

    state = StoredFact[SearchState | None]("state", None, SearchState)
    """None before the first driver runs trials."""
    winner = StoredFact[dict[str, Any] | None]("winner", None)
    """The number of the winner as `trial`, and the `metrics` of its export."""
    precision = StoredFact[str]("precision", "")
    """What `train.precision` was resolved to; empty before that."""
    trunk_cache = StoredFact[int | str | None]("trunk_cache", None)
    """What `train.trunk_cache` was resolved to; None before that."""
    cache_speedups = StoredFact[Sequence[float]]("gains", ())
    """How many times as fast cached features make a phase, by its depth, as measured."""
    allocations = StoredFact[Sequence[Any]]("shares", ())
    """Pairs: a time, seconds since 1970, and the `TrialResources` of one trial from then on."""
    data_digest = StoredFact[str]("data", "")
    """Digest of the data set; empty before the search is opened for the first time."""
    id = StoredFact[str]("id", "")
    """Identity of the search, for MLflow; empty before it is opened for the first time."""
    folder = StoredFact[str | None]("folder", None)
    """The folder of the search, if its study is in a database."""
    test_looks = StoredFact[int]("looks", 0)
    """How often the test split was evaluated."""
