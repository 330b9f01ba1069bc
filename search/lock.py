"""One driver a search: who holds a search's folder."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


class Busy(Exception):
    """Another process runs this search."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a search's folder for this process alone. Raises Busy, saying who holds it."""
    folder.mkdir(parents=True, exist_ok=True)
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
