"""The canvases of a split in one file, which all trials of a machine map into memory."""

import contextlib
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray

from . import canvas, pixels
from .canvas import cache_folder, letterbox
from .dataset import Split
from .shared_arrays import locked, open_array, write_array

UNUSED = 30 * 24 * 3600.0
"""Files that nobody opened for this many seconds are removed when others are made."""
AHEAD = min(32, (os.cpu_count() or 1) + 4)
"""Most canvases that are made or wait for the disk at once, one per thread."""

Item = TypeVar("Item")
Made = TypeVar("Made")


def canvases_folder() -> Path:
    """Where this machine keeps the canvases of its data sets."""
    return cache_folder() / "canvases"


def open_canvases(
    split: Split, size: int, folder: Path, on_step: Callable[[], None] = lambda: None
) -> NDArray[np.uint8]:
    """Map the canvases of a split, (n, size, size, 3), from a file that is made at first use.

    Safe for many processes at once: one makes the file, completely or not at all, and the others
    wait. A damaged file is removed and made again. `on_step` is called while work goes on.
    """
    key = canvases_digest(split, size)
    folder.mkdir(parents=True, exist_ok=True)
    store = open_array(folder, key, on_step)
    if store is None:
        with locked(folder / f"{key}.lock", on_step):
            store = open_array(folder, key, on_step)
            if store is None:  # else another process has made it
                _make_store(split, size, folder, key, on_step)
                store = open_array(folder, key, on_step)
    if store is None:
        raise OSError(f"{folder}: the file reads differently from what was written")
    return store


def canvases_digest(split: Split, size: int) -> str:
    """Identity of a split's canvases."""
    identity = f"{_code_digest()} {size} " + " ".join(p.sha256 for p in split.pictures)
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


@cache
def _code_digest() -> str:
    """Digest of the code that makes canvases, and of Pillow's version."""
    total = hashlib.sha256(PIL.__version__.encode())
    for file in (canvas.__file__, pixels.__file__):
        total.update(Path(file).read_bytes())
    return total.hexdigest()


def _make_store(
    split: Split, size: int, folder: Path, key: str, on_step: Callable[[], None]
) -> None:
    for part in folder.glob(f"{key}.*.part"):
        part.unlink()  # of a process that died: this one holds the lock
    for file in folder.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > UNUSED:
                file.unlink()
    # PIL decodes and scales without the interpreter's lock
    make = partial(letterbox, size=size)
    with (
        write_array(folder, key, len(split.pictures)) as add,
        make_ahead(make, split.pictures, AHEAD) as canvases,
    ):
        for pixels_of_canvas in canvases:
            on_step()
            add(pixels_of_canvas)


@contextlib.contextmanager
def make_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int
) -> Iterator[Iterator[Made]]:
    """What `make` gives for each item, in order, made by threads.

    At most as many results as threads wait to be used: an executor's `map` would make all of them.
    What has not begun when the caller leaves is not made.
    """
    with (
        ThreadPoolExecutor(threads) as pool,
        contextlib.closing(_in_order(pool, make, items, threads)) as results,
    ):
        yield results


def _in_order(
    pool: Executor, make: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Generator[Made, None, None]:
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
