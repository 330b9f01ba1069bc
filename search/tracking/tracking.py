"""MLflow follows the study: one thread of the driver fills in what MLflow lacks.

A server that does not answer delays its rows and stops nothing.
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
from .mirror import SEARCH_UPDATE, Mirror, Part, Update
from .search_run import TrackedSearch

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Seconds to wait after an update that MLflow did not take."""
UNKNOWN_SECONDS = 10.0
"""Seconds to wait, at the end, for a server that never answered."""
PAUSE = 1.0
"""Seconds between rounds; what is new about a trial in between goes into one request."""
REFUSALS = 3
"""After so many refused files in a row the end of a search no longer waits for files."""
SEARCH_SECONDS = 10.0
"""Seconds between two updates of the search's run, each of which reads every trial."""


def try_once() -> None:
    """Make MLflow's client give up soon; by default it tries for minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def describe_error(error: Exception) -> str:
    """The first line of an error of MLflow, without secrets.

    After several tries of its client it is the error of the last try.
    """
    text = (str(error).splitlines() or [""])[0]
    text = text.rpartition("Caused by ")[2].removesuffix("))") or text
    return f"{type(error).__name__}: {shorten(printable(redacted(text)), 200)}"


class NoTracking:
    """Tracking switched off: the same methods, which do nothing."""

    lacks = ""

    def wake(self, number: int | None) -> None:
        """Nothing to fill in."""

    def close(self, seconds: float) -> bool:
        """Nothing to wait for."""
        return True


class MlflowTracking:
    """Fills MLflow from a study in a separate thread; for the arguments see `TrackedSearch`."""

    def __init__(
        self,
        uri: str,
        study: Study,
        name: str,
        folder: Path,
        describe: Callable[[], Description],
    ) -> None:
        try_once()  # the thread tries again anyway, and must not hold up the search's end
        # else MLflow prints a line a run, into the progress table
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self._uri = uri
        self._folder = folder
        self._queue: queue.SimpleQueue[Update] = queue.SimpleQueue()
        self._mirror = Mirror(TrackedSearch(uri, study, name, folder, describe), self._queue.put)
        self._pending: dict[Update, int] = {}
        """Updates to fill in, with how often each failed: those that fail most come last."""
        self._given_up: set[Update] = set()
        self._refused = 0
        """Files that MLflow refused, one after another."""
        self._reasons: dict[bool, str] = {}
        """Why MLflow refused rows (False) and files (True) the last time."""
        self._next_search_update = 0.0
        self._reached = uri.startswith("sqlite")  # a file can be reached, though slowly at first
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        for number in study.records:
            self.wake(number)
        self.wake(None)
        self._thread.start()

    def wake(self, number: int | None) -> None:
        """Say that the study has something new about a trial, or about the search (None)."""
        self._queue.put(SEARCH_UPDATE if number is None else Update(Part.TRIAL, number))

    def close(self, seconds: float) -> bool:
        """Wait until MLflow has everything, at most so long; for a server that never answered less.

        Returns:
            Whether MLflow has everything.
        """
        self.wake(None)
        self._closing.set()
        self._thread.join(min(seconds, UNKNOWN_SECONDS))
        if self._reached:
            self._thread.join(max(0.0, seconds - UNKNOWN_SECONDS))
        complete = not self._thread.is_alive() and not self._given_up
        self._abandoned.set()  # two writers would write rows twice, and another may come
        return complete

    @property
    def lacks(self) -> str:
        """What MLflow lacks at the end, and what to do about it; empty when it has everything."""
        left = [*list(self._pending), *self._given_up]
        if not left:
            return ""
        files_alone = all(update.part is Part.FILES for update in left)
        why, place = self._reasons.get(files_alone, "too slow"), redacted(self._uri)
        if files_alone:
            return (
                f"MLflow lacks files of {len(left)} runs, which its artifact store did not take "
                f"({why}); they are in {self._folder} all the same. The same command logs them "
                "once it takes files"
            )
        return (
            f"MLflow lacks some rows still, {place} did not take them in time ({why}); once it "
            "does, the same command again fills them in"
        )

    def _work(self) -> None:
        while True:
            self._collect(wait=not self._pending and not self._closing.is_set())
            if not self._pending and self._closing.is_set():
                return
            due = filter(self._is_due, self._pending)
            for update in sorted(due, key=lambda update: (self._pending[update], update)):
                if self._abandoned.is_set():
                    return
                if not self._try(update):
                    time.sleep(RETRY_SECONDS)
                    break
            self._closing.wait(PAUSE)

    def _collect(self, wait: bool) -> None:
        """Move updates from the queue to `_pending`; with `wait` stay a while for a first one."""
        try:
            while True:
                self._pending.setdefault(self._queue.get(timeout=0.5 if wait else 0), 0)
                wait = False
        except queue.Empty:
            return

    def _is_due(self, update: Update) -> bool:
        return update != SEARCH_UPDATE or (
            self._closing.is_set() or time.monotonic() >= self._next_search_update
        )

    def _try(self, update: Update) -> bool:
        """Fill in one update; False when the others should wait for MLflow."""
        is_file = update.part is Part.FILES
        try:
            self._fill(update)
        except Exception as error:  # whatever a server, a disk or a network can do
            self._pending[update] += 1
            self._complain(error, is_file)
            return self._give_up(update)
        self._reached = True
        del self._pending[update]
        if is_file:
            self._refused = 0
        return True

    def _fill(self, update: Update) -> None:
        if update == SEARCH_UPDATE:
            self._next_search_update = time.monotonic() + SEARCH_SECONDS
        self._mirror.fill(update)

    def _give_up(self, update: Update) -> bool:
        """Leave a file to the next driver, where MLflow has all rows and takes no files."""
        self._refused += update.part is Part.FILES
        gives_up = (
            self._closing.is_set()
            and self._refused >= REFUSALS
            and all(pending.part is Part.FILES for pending in self._pending)
        )
        if gives_up:
            self._given_up.add(update)
            del self._pending[update]
        return gives_up

    def _complain(self, error: Exception, files: bool) -> None:
        """Log the first refusal of rows, and the first of files; an outage is logged once."""
        if files not in self._reasons and not (files and self._reasons):
            log.warning(
                "MLflow did not take our %s (%s); the search continues, and sends them again later",
                "files" if files else "rows",
                describe_error(error),
            )
        self._reasons[files] = describe_error(error)
