"""One driver a search: who holds a search's folder, and asking them to stop."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.config import BadInput

REQUEST = "stop"
"""A file of this name in a search's folder asks its driver to stop."""


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
    holder = folder / "driver.json"
    lock = FileLock(folder / "driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = json.loads(holder.read_text()) if holder.is_file() else {}
        raise Busy(
            f"{folder.name} is being run by process {who.get('pid', '?')} on "
            f"{who.get('host', '?')} since {who.get('since', '?')}"
        ) from None
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder.write_text(json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "since": since}))
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether some process runs the search in this folder now."""
    file = folder / "driver.lock"
    if not file.is_file():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
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
