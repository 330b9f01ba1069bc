"""MLflow as a mirror of a study: one run for the search, and below it one for each trial.

Rows carry the study's timestamps, so a replay writes the same rows. MLflow reads credentials from
the environment; nothing here sees them.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from .search_run import SearchRun, TrackedSearch
from .trial_runs import TrialRuns


class Part(IntEnum):
    """What to fill in, in this order.

    The search's run is the parent of the others, and files may be slow.
    """

    SEARCH = 0
    TRIAL = 1
    FILES = 2


NO_TRIAL = -1
"""In place of a trial's number: the search itself."""


class Update(NamedTuple):
    """Something that MLflow lacks; updates sort in the order in which they are filled in."""

    part: Part
    number: int = NO_TRIAL
    """The trial's number."""


SEARCH_UPDATE = Update(Part.SEARCH)


class Mirror:
    """Writes into MLflow what it lacks of a study. Exceptions of MLflow propagate."""

    def __init__(self, search: TrackedSearch, add: Callable[[Update], None]) -> None:
        """`add` gets the updates that become due after another."""
        self._add = add
        self._search_run = SearchRun(search)
        self._trial_runs = TrialRuns(self._search_run)

    def fill(self, update: Update) -> None:
        """Write what MLflow lacks of one part."""
        part, number = update
        if part is Part.TRIAL:
            if self._trial_runs.fill(number):
                self._add(Update(Part.FILES, number))
        elif part is Part.SEARCH:
            self._search_run.fill()
            self._add(Update(Part.FILES))
        elif number == NO_TRIAL:
            self._search_run.fill_files()
        else:
            self._trial_runs.fill_files(number)
