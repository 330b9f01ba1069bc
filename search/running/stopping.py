"""Why a search stops before its trials are done: asked to, the same bug again, a full disk, a
dead Ray."""

import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Stopper

from ..study.facts import SearchState
from ..study.lock import is_requested, withdraw_request
from ..study.record import End, TrialRecord
from ..study.study import Study
from .searcher import MAX_RETRIES

log = logging.getLogger(__name__)

SAME_BUG = 3
"""Trials that end with one and the same error before the search does."""
ALL_LOST = 6
"""Trials that are lost before the search ends, where meanwhile none came to an epoch; with more at
once, twice as many as these."""


class Stopping(Stopper):
    """Stops the search for a reason, which stays in `state` and `reason`."""

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
        """Whether nodes may come, so that a search without any waits."""
        self._waits = False
        self._before = {record.number for record in study.ended()}
        self.state: SearchState | None = None
        """What the search's state becomes; None while nothing speaks against going on."""
        self.reason = ""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts at the start; this stays here

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # single trials are the scheduler's

    def stop_all(self) -> bool:
        if self.state is None:
            self._look()
        return self.state is not None

    def _look(self) -> None:
        failed = [r for r in self._study.ended() if r.end in (End.ERROR, End.LOST)]
        # of this run only: who has mended the bug wants to go on
        new = [r for r in failed if r.number not in self._before]
        texts = Counter(_signature(r) for r in new if r.end is End.ERROR)  # lost is no bug
        if self._study.full_disk:
            self.state, self.reason = SearchState.DISK_FULL, self._study.full_disk
        elif texts and max(texts.values()) >= SAME_BUG:
            last = [r for r in new if _signature(r) == texts.most_common(1)[0][0]][-1]
            self.state = SearchState.FAILED
            self.reason = f"{SAME_BUG} trials ended alike, so the rest would too:\n{_place(last)}"
        elif self._max_failed is not None and len(failed) > self._max_failed:
            self.state = SearchState.FAILED
            self.reason = (
                f"{len(failed)} trials failed; search.max_failed_trials is {self._max_failed}. "
                f"The last one:\n{failed[-1].text.strip()}"
            )
        elif lost := self._lost_in_vain(new):
            self.state = SearchState.FAILED
            self.reason = (
                f"the workers of {lost} trials died, {MAX_RETRIES + 1} times each, and meanwhile "
                "none came to an epoch: nodes go or the system's memory killer ends workers sooner "
                "than an epoch takes, or something that all trials run kills their process. The "
                "kernel's log and Ray's say which; the same line goes on with the other trials."
            )
        elif is_requested(self._folder):
            withdraw_request(self._folder)
            self.state = SearchState.STOPPED
        else:
            self._look_for_nodes()

    def _lost_in_vain(self, new: list[TrialRecord]) -> int:
        """How many trials were lost since one last ran an epoch, if too many."""
        lost = [r.ended or 0.0 for r in new if r.end is End.LOST]
        most = max(ALL_LOST, 2 * self._slots()) if len(lost) >= ALL_LOST else ALL_LOST
        if len(lost) < most:
            return 0
        epochs = [
            record.times[epoch]
            for record in list(self._study.records.values())
            for epoch, report in list(record.reports.items())
            if not report.forked
        ]
        since = sum(ended > max(epochs, default=0.0) for ended in lost)
        return since if since >= most else 0

    def _look_for_nodes(self) -> None:
        empty = not self._slots()
        if empty and not self._grows:
            self.state = SearchState.INTERRUPTED
            self.reason = "Ray's own processes on this machine died."
        elif empty and not self._waits:
            log.warning("no node is there that could hold a trial; waiting for one")
        self._waits = empty


def _signature(record: TrialRecord) -> str:
    """What errors that are alike have in common: the place, and the words without numbers, for a
    path names its trial."""
    *places, words = _place(record).splitlines()
    return "\n".join([*places, re.sub(r"\d+", "#", words)])


def _place(record: TrialRecord) -> str:
    """Where and with what words a trial failed: the last place in its traceback, and the error."""
    lines = record.text.strip().splitlines() or [record.end or ""]
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    return "\n".join([*places[-1:], lines[-1]])
