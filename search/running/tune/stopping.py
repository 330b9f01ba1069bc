"""Why a search stops before its trials are done.

Somebody asked for it, the same bug ends trial after trial, the disk is full, or Ray died.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Stopper

from ...study.lock import is_stop_requested, withdraw_stop_request
from ...study.record import End, TrialRecord
from ...study.search_state import SearchState
from ...study.study import Study
from .retries import MAX_RETRIES

log = logging.getLogger(__name__)

MAX_SAME_ERRORS = 3
"""Trials with one and the same error that end the search."""
MAX_LOST = 6
"""Lost trials that end the search if no trial completed an epoch meanwhile. With many trials at
once, twice as many as those."""


class SearchStopper(Stopper):
    """Stops the search, and keeps why in `state` and `reason`.

    Args:
        study: The record.
        folder: The search's folder, in which `unfreeze stop` leaves its request.
        max_failed: Failed trials that the user allows; None for any number.
        slots: Counts the trials that the cluster holds at once.
        grows: Whether nodes may join, so that a search without any node waits.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        max_failed: int | None,
        slots: Callable[[], int] = lambda: 1,
        grows: bool = True,
    ) -> None:
        self._study = study
        self._folder = folder
        self._max_failed = max_failed
        self._slots = slots
        self._grows = grows
        self._waits_for_a_node = False
        self._ended_before = {record.number for record in study.ended()}
        self.state: SearchState | None = None
        """The state that the search ends in; None while it goes on."""
        self.reason = ""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts at the start; this stays here

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """False: the scheduler stops single trials."""
        return False

    def stop_all(self) -> bool:
        """Whether Tune is to stop all trials and end."""
        if self.state is None:
            self._check()
        return self.state is not None

    def _check(self) -> None:
        failed = [r for r in self._study.ended() if r.end in (End.ERROR, End.LOST)]
        # Only those of this run: a user who has fixed a bug wants to go on.
        new = [record for record in failed if record.number not in self._ended_before]
        if self._study.full_disk:
            self._stop(SearchState.DISK_FULL, self._study.full_disk)
        elif (
            reason := _same_error(new) or self._too_many_failed(failed) or self._too_many_lost(new)
        ):
            self._stop(SearchState.FAILED, reason)
        elif is_stop_requested(self._folder):
            withdraw_stop_request(self._folder)
            self._stop(SearchState.STOPPED)
        else:
            self._check_nodes()

    def _stop(self, state: SearchState, reason: str = "") -> None:
        self.state, self.reason = state, reason

    def _too_many_failed(self, failed: list[TrialRecord]) -> str:
        if self._max_failed is None or len(failed) <= self._max_failed:
            return ""
        return (
            f"{len(failed)} trials failed; search.max_failed_trials is {self._max_failed}. "
            f"The last one:\n{failed[-1].text.strip()}"
        )

    def _too_many_lost(self, new: list[TrialRecord]) -> str:
        lost = self._lost_since_last_epoch(new)
        if not lost:
            return ""
        return (
            f"{lost} trials lost their worker or node {MAX_RETRIES + 1} times each, and meanwhile "
            "no trial completed an epoch. Either nodes or the system's memory killer end workers "
            "sooner than an epoch takes, or something that all trials run kills their process. See "
            "the kernel's log and Ray's; the same command continues with the other trials."
        )

    def _lost_since_last_epoch(self, new: list[TrialRecord]) -> int:
        """How many trials were lost since one last ran an epoch; 0 if they are not too many."""
        lost = [record.ended or 0.0 for record in new if record.end is End.LOST]
        limit = max(MAX_LOST, 2 * self._slots()) if len(lost) >= MAX_LOST else MAX_LOST
        if len(lost) < limit:
            return 0
        epochs = [
            record.times[epoch]
            for record in list(self._study.records.values())
            for epoch, report in list(record.reports.items())
            if not report.forked
        ]
        since = sum(ended > max(epochs, default=0.0) for ended in lost)
        return since if since >= limit else 0

    def _check_nodes(self) -> None:
        empty = not self._slots()
        if empty and not self._grows:
            self._stop(SearchState.INTERRUPTED, "Ray's processes on this machine died.")
        elif empty and not self._waits_for_a_node:
            log.warning("no node of the cluster can hold a trial; waiting for one")
        self._waits_for_a_node = empty


def _same_error(new: list[TrialRecord]) -> str:
    """The reason to stop where too many trials ended with the same error; else an empty string."""
    errors = [record for record in new if record.end is End.ERROR]  # lost workers are no bug
    (signature, count), *_ = Counter(map(_signature, errors)).most_common(1) or [("", 0)]
    if count < MAX_SAME_ERRORS:
        return ""
    last = next(record for record in reversed(new) if _signature(record) == signature)
    return f"{count} trials ended with the same error, so the others would too:\n{_place(last)}"


def _signature(record: TrialRecord) -> str:
    """What equal errors have in common: the place, and the words without numbers.

    A path in an error contains the number of its trial.
    """
    *places, words = _place(record).splitlines()
    return "\n".join([*places, re.sub(r"\d+", "#", words)])


def _place(record: TrialRecord) -> str:
    """Where and how a trial failed: the last place in its traceback, and the error."""
    lines = record.text.strip().splitlines() or [record.end or ""]
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    return "\n".join([*places[-1:], lines[-1]])
