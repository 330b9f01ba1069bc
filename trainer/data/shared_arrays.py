"""Arrays in files that many processes map into memory.

A file is written once, completely or not at all. Its name ends with a checksum of its content, so
that a damaged file is noticed before it is used, and made again.
"""

import logging
import os
import platform
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WAIT = 1.0
"""Seconds between two attempts at a lock."""
CHECKED = 4 * 10**9
"""Largest file, in bytes, whose checksum is verified: it takes about a second for each 10**9. Of a
larger one only the length is checked, or a trial would begin minutes later."""

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]


class _DamagedError(Exception):
    """A file does not hold what was written."""


_checked: set[tuple[Path, int, int]] = set()
"""Files whose checksum this process has verified: name, inode, size."""


def open_array(folder: Path, key: str, on_step: Callable[[], None] = lambda: None) -> Bytes | None:
    """The array of a key, (n, ...), mapped read-only; None if there is no complete file.

    The first time in a process its checksum is verified, up to CHECKED bytes; `on_step` is called
    for each row.
    """
    for file in folder.glob(f"{key}-*.npy"):
        try:
            known = file.stat()
            store = _open(file, known, on_step)
        except FileNotFoundError:
            continue  # another process removed it
        except _DamagedError as error:
            log.warning("%s is damaged: %s; it is made again", file, error)
            with suppress(FileNotFoundError):
                if file.stat().st_ino == known.st_ino:  # else another process made it again
                    file.unlink()
            continue
        with suppress(OSError):  # it may belong to another user
            os.utime(file)  # marks it as in use
        return store
    return None


def _open(file: Path, known: os.stat_result, on_step: Callable[[], None]) -> Bytes:
    try:
        store: Bytes = np.load(file, mmap_mode="r")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # numpy raises many kinds for a wrong header or length
        raise _DamagedError(str(error)) from error
    if (file, known.st_ino, known.st_size) not in _checked and known.st_size <= CHECKED:
        total = 0
        for row in store:
            on_step()
            total = zlib.crc32(row, total)
        if not file.stem.endswith(f"-{total:08x}"):
            raise _DamagedError("its checksum differs from the one in its name")
        _checked.add((file, known.st_ino, known.st_size))
    return store


@contextmanager
def write_array(folder: Path, key: str, count: int) -> Iterator[Callable[[Bytes], None]]:
    """Write an array of `count` rows of one shape; the file appears at the end.

    Only one process at a time may write a key, see `locked`.

    Yields:
        A function that appends a row.

    Raises:
        OSError: The disk is full.
    """
    part = folder / f"{key}.{platform.node()}.{os.getpid()}.part"
    total = rows = 0
    try:
        with part.open("wb") as file:

            def add(row: Bytes) -> None:
                nonlocal total, rows
                if not rows:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *row.shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(
                    row.data
                )  # a full disk raises here; in mapped memory it would kill the process
                total = zlib.crc32(row.data, total)
                rows += 1

            yield add
            file.flush()
            os.fsync(file.fileno())
        part.rename(folder / f"{key}-{total:08x}.npy")
    finally:
        part.unlink(missing_ok=True)


def key_of(file: Path) -> str:
    """The key of a file."""
    return file.stem.rpartition("-")[0]


@contextmanager
def locked(file: Path, on_step: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, so that one process per machine writes.

    `on_step` is called while it is waited for, so that a watchdog sees the process alive.
    """
    from filelock import FileLock, Timeout  # slow to import, and `unfreeze check` needs no lock

    lock = FileLock(file)
    while not lock.is_locked:
        on_step()
        with suppress(Timeout):
            lock.acquire(timeout=WAIT)
    try:
        yield
    finally:
        lock.release()
