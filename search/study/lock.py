"""One driver per search: the lock of a search's folder, and the request to stop."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.config import InputError

from ..space.config_file import LOCK_FILE

STOP_FILE = "stop"
"""File in a search's folder that asks its driver to stop."""
HOLDER_FILE = "driver.json"
"""File in a search's folder: which process has its lock."""
LOCK_TIMEOUT = 0.3
"""Seconds to try for the lock: `is_held` in another process takes it for a moment."""


class SearchBusyError(Exception):
    """Another process runs this search."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a search's folder for this process while the block runs.

    Raises:
        SearchBusyError: Another process has the lock; the message says which.
        InputError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError([f"storage: {folder} cannot be made ({error.strerror})"]) from error
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT, poll_interval=0.01)
    except Timeout:
        raise SearchBusyError(f"{folder.name} is being run by {_holder(folder)}") from None
    try:
        _write_holder(folder)
        yield
    finally:
        (folder / HOLDER_FILE).unlink(missing_ok=True)
        lock.release()


def _write_holder(folder: Path) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"pid": os.getpid(), "host": os.uname().nodename, "since": since}
    part = folder / f".{HOLDER_FILE}.{os.getpid()}"
    part.write_text(json.dumps(holder))
    part.replace(folder / HOLDER_FILE)  # a reader never sees half of it


def _holder(folder: Path) -> str:
    holder = {}
    with contextlib.suppress(OSError, ValueError):  # the process just ended, or the file is damaged
        holder = json.loads((folder / HOLDER_FILE).read_text())
    if not isinstance(holder, dict):
        holder = {}
    return " ".join(
        f"{word} {holder.get(key, '?')}"
        for word, key in (("process", "pid"), ("on", "host"), ("since", "since"))
    )


def is_held(folder: Path) -> bool:
    """Whether a process runs the search in this folder now.

    It needs no write access, and several processes can ask at once.
    """
    with contextlib.suppress(FileNotFoundError), (folder / LOCK_FILE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def request_stop(folder: Path) -> None:
    """Ask the driver of the search in this folder to stop; it may run on another machine."""
    (folder / STOP_FILE).touch()


def is_stop_requested(folder: Path) -> bool:
    """Whether the search in this folder is asked to stop."""
    return (folder / STOP_FILE).exists()


def withdraw_stop_request(folder: Path) -> None:
    """Remove a request to stop, which may be for an earlier driver."""
    (folder / STOP_FILE).unlink(missing_ok=True)
