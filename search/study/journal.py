"""The file of a search's study: Optuna's journal, in which several writes can be one step."""

import contextlib
import json
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from trainer.config import InputError

from ..space.config_file import RESTORE_HINT
from .optuna_internals import BaseJournalFileLock, lock_file

JOURNAL = "study.journal"
"""File in a search's folder."""
LOCK_SECONDS = 1.0
"""More than any process needs to write into the journal."""


def open_journal(file: Path) -> "Journal":
    """A study's journal for its driver, repaired if an earlier driver was killed."""
    _remove_old_lock(file)
    cut_torn_line(file)
    return Journal(file)


@contextlib.contextmanager
def explain_damage(file: Path) -> Iterator[None]:
    """In this block the errors of a damaged journal become InputError, with what a user can do."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise InputError([f"{file} is damaged{_damaged_place(file)}; {RESTORE_HINT}"]) from error


def _damaged_place(file: Path) -> str:
    """The number of the first line that is not JSON, as text; empty if there is none."""
    content = file.read_bytes()
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError:
            return f" in line {number}"
    return "" if content else " (it is empty)"


class _ReentrantLock(BaseJournalFileLock):
    """A lock that its holder may take again."""

    def __init__(self, lock: BaseJournalFileLock) -> None:
        self._lock = lock
        self.depth = 0
        """How often the holder has taken it."""

    def acquire(self) -> bool:
        if not self.depth:
            self._lock.acquire()
        self.depth += 1
        return True

    def release(self) -> None:
        self.depth -= 1
        if not self.depth:
            self._lock.release()


class Journal(JournalFileBackend):
    """Optuna's journal file, which can also write several logs as one step.

    Each write waits for the disk; a step waits once. If the disk is full, none of a step's logs
    stay in the file, since a line after a torn line cannot be read. They are written with the next
    log.
    """

    def __init__(self, file: Path) -> None:
        self._journal = file
        self._write_lock = _ReentrantLock(JournalFileSymlinkLock(str(file)))
        super().__init__(str(file), lock_obj=self._write_lock)
        self._unwritten: list[dict[str, Any]] = []
        """Logs that are not in the file yet."""
        self._replayed = 0
        """How many unwritten logs Optuna has read back."""
        self._read = 0
        """How many logs of the file Optuna has read back."""

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Write the logs of this block as one step at its end; other processes wait for it."""
        self._write_lock.acquire()
        try:
            yield
        finally:
            try:
                if self._write_lock.depth == 1:
                    self._write()
            finally:
                self._write_lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write logs, or keep them until the step ends."""
        self._unwritten += logs
        if not self._write_lock.depth:
            self._write()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The logs from this number on, those that are not in the file yet included."""
        if not self._replayed:
            self._read = log_number_from
            for log in super().read_logs(log_number_from):
                self._read += 1
                yield log
        new = self._unwritten[self._replayed :]
        self._replayed = len(self._unwritten)
        yield from new

    def _write(self) -> None:
        if not self._unwritten:
            return
        self._write_lock.acquire()
        try:
            size = self._journal.stat().st_size
            try:
                super().append_logs(self._unwritten)
            except OSError:
                os.truncate(self._journal, size)  # all of them are written with the next log
                raise
        finally:
            self._write_lock.release()
        if self._replayed:  # the base class notes where in the file these logs are
            for _ in super().read_logs(self._read):
                pass
        self._unwritten, self._replayed = [], 0


def _remove_old_lock(journal: Path) -> None:
    """Remove the lock that a killed driver left, for which Optuna would wait 30 s.

    Only one driver runs a search. A dashboard that writes a note holds the lock for a moment.
    """
    lock = lock_file(journal)
    with contextlib.suppress(FileNotFoundError):
        before = lock.lstat()
        time.sleep(LOCK_SECONDS)
        if lock.lstat().st_ino == before.st_ino:
            lock.unlink()


def cut_torn_line(journal: Path) -> None:
    """Cut off an unfinished last line of a killed driver: Optuna cannot read a line after it."""
    with contextlib.suppress(FileNotFoundError), journal.open("rb+") as file:
        content = file.read()
        finished = content.rfind(b"\n") + 1
        if finished < len(content):
            file.truncate(finished)
