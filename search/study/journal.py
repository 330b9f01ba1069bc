"""The file of a search's study: Optuna's journal, of which the driver writes whole steps."""

import contextlib
import json
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import LOCK_FILE_SUFFIX, BaseJournalFileLock

from trainer.config import BadInput

from ..space.config import BRING_BACK

JOURNAL = "study.journal"
LOCK_SECONDS = 1.0
"""Longer than any process needs that writes into the journal."""


def open_journal(file: Path) -> "Journal":
    """A study's journal for its driver, mended where another was killed."""
    _free(file)
    cut_torn_line(file)
    return Journal(str(file))


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Name a journal, and what to do, where its content is not what was written: BadInput."""
    try:
        yield
    except BadInput:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise BadInput([f"{file} is damaged{_where(file)}; {BRING_BACK}"]) from error


def _where(file: Path) -> str:
    """The first line that is no log, if that is what is wrong."""
    content = file.read_bytes()
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError:
            return f" in line {number}"
    return "" if content else " (it is empty)"


class _Lock(BaseJournalFileLock):
    """A lock that its holder may take again."""

    def __init__(self, lock: BaseJournalFileLock) -> None:
        self._lock = lock
        self.depth = 0

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
    """Optuna's journal file, which can write several logs in one go: it waits for the disk each
    time. A full disk leaves nothing of them, for nothing could follow a half line; what found no
    room is written with the next log."""

    def __init__(self, file: str) -> None:
        self._held = _Lock(JournalFileSymlinkLock(file))
        super().__init__(file, lock_obj=self._held)
        self._waiting: list[dict[str, Any]] = []
        """Logs that are not in the file yet."""
        self._replayed = 0
        """As many of them has Optuna read back."""
        self._read = 0
        """Logs of the file that Optuna has read back."""

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write the logs of a block when it ends; no other process can write one between."""
        self._held.acquire()
        try:
            yield
        finally:
            try:
                if self._held.depth == 1:
                    self._write()
            finally:
                self._held.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._waiting += logs
        if not self._held.depth:
            self._write()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        if not self._replayed:
            self._read = log_number_from
            for log in super().read_logs(log_number_from):
                self._read += 1
                yield log
        new = self._waiting[self._replayed :]
        self._replayed = len(self._waiting)
        yield from new

    def _write(self) -> None:
        if not self._waiting:
            return
        self._held.acquire()
        try:
            size = os.stat(self._file_path).st_size
            try:
                super().append_logs(self._waiting)
            except OSError:
                os.truncate(self._file_path, size)  # all of them are written with the next
                raise
        finally:
            self._held.release()
        if self._replayed:  # let Optuna's class go by what it need not give out again
            for _ in super().read_logs(self._read):
                pass
        self._waiting, self._replayed = [], 0


def _free(journal: Path) -> None:
    """Take away the lock that a killed driver left: Optuna would wait 30 s. Only one driver runs a
    search, and a dashboard that writes a note holds the lock for a moment."""
    lock = Path(f"{journal}{LOCK_FILE_SUFFIX}")
    with contextlib.suppress(FileNotFoundError):
        left = lock.lstat()
        time.sleep(LOCK_SECONDS)
        if lock.lstat().st_ino == left.st_ino:
            lock.unlink()


def cut_torn_line(journal: Path) -> None:
    """Cut off a last line that a killed driver left unfinished: Optuna reads no line after one."""
    with contextlib.suppress(FileNotFoundError), journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
