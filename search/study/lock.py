"""One driver a search: who holds a search's folder, and asking them to stop."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.config import BadInput

from ..space.config import LOCK

REQUEST = "stop"
"""A file of this name in a search's folder asks its driver to stop."""


HOLDER = "driver.json"
"""In a search's folder: who holds its lock."""
PROBES = 0.3
"""Seconds that the lock is tried for: who only asks whether it is held has it for a moment."""


class Busy(Exception):
    """Another process runs this search."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a search's folder for this process alone. Raises Busy, saying who holds it, and
    BadInput where there can be no such folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput([f"storage: {folder} cannot be made ({error.strerror})"]) from error
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PROBES, poll_interval=0.01)
    except Timeout:
        raise Busy(f"{folder.name} is being run by {_holder(folder)}") from None
    try:
        _write_holder(folder)
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _write_holder(folder: Path) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    who = {"pid": os.getpid(), "host": os.uname().nodename, "since": since}
    part = folder / f".{HOLDER}.{os.getpid()}"
    part.write_text(json.dumps(who))
    part.replace(folder / HOLDER)  # who reads it meanwhile reads all of it


def _holder(folder: Path) -> str:
    who = {}
    with contextlib.suppress(OSError, ValueError):  # it ended just now, or something damaged it
        who = json.loads((folder / HOLDER).read_text())
    if not isinstance(who, dict):
        who = {}
    return " ".join(
        f"{word} {who.get(key, '?')}"
        for word, key in (("process", "pid"), ("on", "host"), ("since", "since"))
    )


def is_held(folder: Path) -> bool:
    """Whether some process runs the search in this folder now; asked without a right to write, and
    by many at once."""
    with contextlib.suppress(FileNotFoundError), (folder / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def request_stop(folder: Path) -> None:
    """Ask the driver of the search in this folder, on whatever machine, to stop."""
    (folder / REQUEST).touch()


def is_requested(folder: Path) -> bool:
    """Whether somebody asked."""
    return (folder / REQUEST).exists()


def withdraw_request(folder: Path) -> None:
    """Forget what an earlier driver was asked."""
    (folder / REQUEST).unlink(missing_ok=True)
