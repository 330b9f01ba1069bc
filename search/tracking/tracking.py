"""MLflow follows the study: what it lacks is filled in, by one thread of the driver.

A server that is away delays its rows and stops nothing.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from trainer.text.escaping import printable
from trainer.text.redaction import redacted

from ..study.study import Study
from .description import Description
from .mirror import WHOLE, Item, Mirror, Turn

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
UNKNOWN_SECONDS = 10.0
"""Seconds to wait, at the end, for a server that never answered."""
PAUSE = 1.0
"""Seconds between rounds of filling in: what is new meanwhile about a trial goes into one
request."""
REFUSALS = 3
"""Files in a row that a store may refuse before the end of a search waits for it no more."""
SEARCH_SECONDS = 10.0
"""Between two looks at the search as a whole, which reads every trial."""


def try_once() -> None:
    """Have MLflow's client give up soon; by itself it tries for minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def reason(error: Exception) -> str:
    """The first line of an error of MLflow's, without secrets; where its client gave up after
    several tries, what it met with."""
    text = (str(error).splitlines() or [""])[0]
    text = text.rpartition("Caused by ")[2].removesuffix("))") or text
    return f"{type(error).__name__}: {shorten(printable(redacted(text)), 200)}"


class NoTracking:
    """Tracking switched off: the same face, and nothing behind it."""

    lacks = ""

    def wake(self, number: int | None) -> None:
        """Nothing to fill in."""

    def close(self, seconds: float) -> bool:
        """Nothing to wait for."""
        return True


class MlflowTracking:
    """Fills MLflow from a study in a thread of its own; the arguments are those of `Mirror`."""

    def __init__(
        self,
        uri: str,
        study: Study,
        name: str,
        folder: Path,
        describe: Callable[[], Description],
    ) -> None:
        try_once()  # we come again anyway, and must not hold up an end
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = (
            "true"  # a line a run, into the table
        )
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self._uri = uri
        self._folder = folder
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._mirror = Mirror(uri, study, name, folder, describe, self._queue.put)
        self._stale: dict[Item, int] = {}
        """What is to be filled in, with the times it failed: what never goes blocks nothing."""
        self._given_up: set[Item] = set()
        self._refused = 0
        """Files that were not taken, one after another."""
        self._reasons: dict[bool, str] = {}
        """Why MLflow did not take rows, and why files (True), the last time."""
        self._search_again = 0.0
        self._reached = uri.startswith("sqlite")  # a file is there; making its tables takes a while
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        for number in study.records:
            self.wake(number)
        self.wake(None)
        self._thread.start()

    def wake(self, number: int | None) -> None:
        """Something about this trial (None: the search) is new in the study."""
        self._queue.put((Turn.SEARCH, WHOLE) if number is None else (Turn.ROWS, number))

    def close(self, seconds: float) -> bool:
        """Wait until everything is filled in, at most so long; False when something is missing.

        For a server that never answered it does not wait long.
        """
        self.wake(None)
        self._closing.set()
        self._thread.join(min(seconds, UNKNOWN_SECONDS))
        if self._reached:
            self._thread.join(max(0.0, seconds - UNKNOWN_SECONDS))
        complete = not self._thread.is_alive() and not self._given_up
        self._abandoned.set()  # another writer may come: two would write rows twice
        return complete

    @property
    def lacks(self) -> str:
        """What MLflow did not take before it was closed, and what to do; empty where it has all."""
        left = [*list(self._stale), *self._given_up]
        files_alone = all(turn is Turn.FILES for turn, _ in left)
        if not left:
            return ""
        why, place = self._reasons.get(files_alone, "too slow"), redacted(self._uri)
        if files_alone:
            return (
                f"MLflow lacks files of {len(left)} runs, which its artifact store did not take "
                f"({why}); they are in {self._folder} all the same. The same line logs them once "
                "it takes files"
            )
        return (
            f"MLflow lacks some rows still, {place} did not take them in time ({why}); once it "
            "does, the same line again fills them in"
        )

    def _work(self) -> None:
        stale = self._stale
        while True:
            self._collect(stale, wait=not stale and not self._closing.is_set())
            if not stale and self._closing.is_set():
                return
            for item in sorted(filter(self._is_due, stale), key=lambda item: (stale[item], item)):
                if self._abandoned.is_set():
                    return
                try:
                    self._fill(item)
                    self._reached = True
                    del stale[item]
                    self._refused = 0 if item[0] is Turn.FILES else self._refused
                except Exception as error:  # whatever a server, a disk or a network can do
                    stale[item] += 1
                    self._complain(error, item[0] is Turn.FILES)
                    if not self._give_up(item):
                        time.sleep(RETRY_SECONDS)
                        break
            self._closing.wait(PAUSE)

    def _give_up(self, item: Item) -> bool:
        """Leave a file to the next driver, where MLflow has all rows and takes no files."""
        self._refused += item[0] is Turn.FILES
        gone = (
            self._closing.is_set()
            and self._refused >= REFUSALS
            and all(turn is Turn.FILES for turn, _ in self._stale)
        )
        if gone:
            self._given_up.add(item)
            del self._stale[item]
        return gone

    def _is_due(self, item: Item) -> bool:
        return item != (Turn.SEARCH, WHOLE) or (
            self._closing.is_set() or time.monotonic() >= self._search_again
        )

    def _collect(self, stale: dict[Item, int], wait: bool) -> None:
        try:
            while True:
                stale.setdefault(self._queue.get(timeout=0.5 if wait else 0), 0)
                wait = False
        except queue.Empty:
            return

    def _fill(self, item: Item) -> None:
        if item == (Turn.SEARCH, WHOLE):
            self._search_again = time.monotonic() + SEARCH_SECONDS
        self._mirror.fill(item)

    def _complain(self, error: Exception, files: bool) -> None:
        if files not in self._reasons and not (files and self._reasons):  # told once of an outage
            log.warning(
                "MLflow does not take our %s (%s); the search goes on, and they are filled in "
                "when it does",
                "files" if files else "rows",
                reason(error),
            )
        self._reasons[files] = reason(error)
