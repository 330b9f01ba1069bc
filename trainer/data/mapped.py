"""Files of rows that many processes map: each written once, whole or not at all, and checked.

A file's name ends with a sum of its content, so that what a disk spoiled is found before it is
used, and made again.
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
"""Seconds between two looks at a lock."""
CHECKED = 4 * 10**9
"""Bytes of a file up to which its sum is checked, which takes a second or so for each 10**9: of a
larger one only its length is, or a trial would begin minutes later."""

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]


class _Spoiled(Exception):
    """A file does not hold what was written."""


_checked: set[tuple[Path, int, int]] = set()
"""Files that this process has read whole: name, inode, size."""


def find(folder: Path, key: str, on_step: Callable[[], None] = lambda: None) -> Bytes | None:
    """The rows of a key, (n, ...), mapped; None where they are not there whole.

    The first time a process asks, it reads them all, up to CHECKED bytes. `on_step` is called again
    and again meanwhile.
    """
    for file in folder.glob(f"{key}-*.npy"):
        try:
            known = file.stat()
            store = _open(file, known, on_step)
        except FileNotFoundError:
            continue  # another process throws it away
        except _Spoiled as error:
            log.warning("%s is damaged: %s; it is made again", file, error)
            with suppress(FileNotFoundError):
                if file.stat().st_ino == known.st_ino:  # else it is made again already
                    file.unlink()
            continue
        with suppress(OSError):  # it may not be ours to touch
            os.utime(file)  # in use
        return store
    return None


def _open(file: Path, known: os.stat_result, on_step: Callable[[], None]) -> Bytes:
    try:
        store: Bytes = np.load(file, mmap_mode="r")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # numpy has many for a wrong header or length
        raise _Spoiled(str(error)) from error
    if (file, known.st_ino, known.st_size) not in _checked and known.st_size <= CHECKED:
        total = 0
        for row in store:
            on_step()
            total = zlib.crc32(row, total)
        if not file.stem.endswith(f"-{total:08x}"):
            raise _Spoiled("its content has another sum than its name")
        _checked.add((file, known.st_ino, known.st_size))
    return store


@contextmanager
def writing(folder: Path, key: str, count: int) -> Iterator[Callable[[Bytes], None]]:
    """A function that adds a row to a new file of `count` rows, all of one shape; at the end the
    file is there. Raises OSError where the disk has no room. One process at a time, see `locked`.
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
                file.write(row.data)  # a full disk raises here; in a map it would kill
                total = zlib.crc32(row.data, total)
                rows += 1

            yield add
            file.flush()
            os.fsync(file.fileno())
        part.rename(folder / f"{key}-{total:08x}.npy")
    finally:
        part.unlink(missing_ok=True)


def key_of(file: Path) -> str:
    """The key under which a file was written."""
    return file.stem.rpartition("-")[0]


@contextmanager
def locked(file: Path, on_step: Callable[[], None]) -> Iterator[None]:
    """One process a machine makes files; the others show meanwhile that they do not hang."""
    from filelock import FileLock, Timeout  # slow to import, and no part of a check

    lock = FileLock(file)
    while not lock.is_locked:
        on_step()
        with suppress(Timeout):
            lock.acquire(timeout=WAIT)
    try:
        yield
    finally:
        lock.release()
