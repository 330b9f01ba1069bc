"""Canvases: every picture letterboxed once to a fixed square, kept in a file all trials map.

A canvas holds the picture at its top left, scaled to fit, the rest grey. Since the canvas is
fixed, what a detector sees of one picture never depends on its batch mates.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import BadInput
from .dataset import Picture, Split
from .pixels import FORMATS, GREY, to_rgb

WAIT = 1.0
"""Seconds between two looks at a lock."""
VERSION = 2
"""Part of a store's digest; raise it when the making of a canvas changes."""


@dataclass(frozen=True)
class Canvas:
    """One picture on its canvas."""

    pixels: NDArray[np.uint8]
    """(size, size, 3) RGB."""
    scale: tuple[float, float]
    """Canvas pixels a picture pixel, across and down."""


def to_canvas(picture: Image.Image, size: int) -> Canvas:
    """Letterbox an upright RGB picture."""
    scaled = picture.resize(fitted(*picture.size, size), Image.Resampling.BILINEAR)
    pixels = np.full((size, size, 3), GREY, dtype=np.uint8)
    pixels[: scaled.height, : scaled.width] = np.asarray(scaled)
    return Canvas(pixels, scales(*picture.size, size))


def fitted(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height that a picture has on its canvas, at least a pixel each."""
    scale = min(size / width, size / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def scales(width: int, height: int, size: int) -> tuple[float, float]:
    """Canvas pixels a picture pixel, across and down."""
    across, down = fitted(width, height, size)
    return across / width, down / height


def letterbox(picture: Picture, size: int) -> NDArray[np.uint8]:
    """Decode one picture of a data set onto its canvas. Raises BadInput like `open_picture`."""
    return to_canvas(open_picture(picture.file), size).pixels


def open_picture(file: Path) -> Image.Image:
    """A picture as seen: upright, RGB. Raises BadInput naming the file when it cannot be read."""
    try:
        with Image.open(file, formats=FORMATS) as opened:
            return to_rgb(opened)
    except MemoryError:  # says nothing of the picture
        raise
    except Exception as error:  # decoders raise whatever they like for broken files
        raise BadInput([f"{file}: cannot be read as a picture ({error})"]) from error


def open_store(
    split: Split, size: int, folder: Path, on_step: Callable[[], None] = lambda: None
) -> NDArray[np.uint8]:
    """The canvases of a split, (n, size, size, 3), mapped from a file made at first use.

    Safe for many processes at once: one makes the file, whole or not at all, the others wait.
    `on_step` is called again and again meanwhile.
    """
    file = folder / f"{store_digest(split, size)}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(file.with_suffix(".lock"), on_step):
            if not file.is_file():
                for part in folder.glob(f"{file.stem}.*.part"):
                    part.unlink()  # of a process that died: the lock is ours
                _make_store(split, size, file, on_step)
    store: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    return store


def store_digest(split: Split, size: int) -> str:
    """Identity of a split's canvases."""
    identity = f"{VERSION} {size} " + " ".join(picture.sha256 for picture in split.pictures)
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


@contextlib.contextmanager
def locked(file: Path, on_step: Callable[[], None]) -> Iterator[None]:
    """One process a machine makes files; the others show meanwhile that they do not hang."""
    from filelock import FileLock, Timeout  # slow to import, and no part of a check

    lock = FileLock(file)
    while not lock.is_locked:
        on_step()
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=WAIT)
    try:
        yield
    finally:
        lock.release()


def _make_store(split: Split, size: int, file: Path, on_step: Callable[[], None]) -> None:
    part = file.with_suffix(f".{os.getpid()}.part")
    shape = (len(split.pictures), size, size, 3)
    try:
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        with part.open("r+b") as stream:  # a full disk is an OSError here, later a bus error
            os.posix_fallocate(stream.fileno(), 0, part.stat().st_size)
        with ThreadPoolExecutor() as pool:  # PIL decodes and scales without the interpreter's lock
            for i, canvas in enumerate(pool.map(lambda p: letterbox(p, size), split.pictures)):
                on_step()
                store[i] = canvas
        store.flush()
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where this machine keeps what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unfreeze"
