"""Canvases: every picture letterboxed once to a fixed square, kept in a file all trials map.

A canvas holds the picture at its top left, scaled to fit, the rest grey. Since the canvas is
fixed, what a detector sees of one picture never depends on its batch mates.
"""

import contextlib
import hashlib
import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from errno import ENOMEM
from functools import cache, partial
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from ..config import BadInput
from . import pixels
from .dataset import Picture, Split
from .mapped import find, locked, writing
from .pixels import FORMATS, GREY, to_rgb

UNUSED = 30 * 24 * 3600.0
"""Seconds after which canvases that nobody opened go, when others are made."""
AHEAD = min(32, (os.cpu_count() or 1) + 4)
"""Canvases that are being made or wait for the disk, however slow it is: one a thread."""
CHANGED = (
    "was changed after the data set was checked, so that its boxes may be of another picture; put "
    "it back, or run `unfreeze check` and begin anew"
)


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
    """One picture of a data set on its canvas. Raises BadInput like `open_picture`."""
    return to_canvas(open_picture(picture.file, picture.sha256), size).pixels


def open_picture(file: Path, sha256: str | None = None) -> Image.Image:
    """A picture as seen: upright, RGB. Raises BadInput naming the file where it cannot be read, or
    where its bytes have another digest than the one given."""
    try:
        content = file.read_bytes()
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise BadInput([f"{file}: {CHANGED}"])
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            return to_rgb(opened)
    except BadInput:
        raise
    except Exception as error:  # decoders raise whatever they like for broken files
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == ENOMEM:
            raise  # it says nothing of the picture
        raise BadInput([f"{file}: cannot be read as a picture ({error})"]) from error


def open_store(
    split: Split, size: int, folder: Path, on_step: Callable[[], None] = lambda: None
) -> NDArray[np.uint8]:
    """The canvases of a split, (n, size, size, 3), mapped from a file made at first use.

    Safe for many processes at once: one makes the file, whole or not at all, the others wait. A
    damaged file is thrown away and made again. `on_step` is called again and again meanwhile.
    """
    key = store_digest(split, size)
    folder.mkdir(parents=True, exist_ok=True)
    store = find(folder, key, on_step)
    if store is None:
        with locked(folder / f"{key}.lock", on_step):
            store = find(folder, key, on_step)
            if store is None:  # else another process has made it
                _make_store(split, size, folder, key, on_step)
                store = find(folder, key, on_step)
    if store is None:
        raise OSError(f"{folder}: what was written there is not what is read")
    return store


def store_digest(split: Split, size: int) -> str:
    """Identity of a split's canvases."""
    identity = f"{_making()} {size} " + " ".join(picture.sha256 for picture in split.pictures)
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


@cache
def _making() -> str:
    """Digest of what makes canvases: this code, and the version of what decodes and scales."""
    total = hashlib.sha256(PIL.__version__.encode())
    for file in (__file__, pixels.__file__):
        total.update(Path(file).read_bytes())
    return total.hexdigest()


def _make_store(
    split: Split, size: int, folder: Path, key: str, on_step: Callable[[], None]
) -> None:
    for part in folder.glob(f"{key}.*.part"):
        part.unlink()  # of a process that died: the lock is ours
    for file in folder.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > UNUSED:
                file.unlink()
    # PIL decodes and scales without the interpreter's lock
    with writing(folder, key, len(split.pictures)) as add, ThreadPoolExecutor(AHEAD) as pool:
        for canvas in _in_order(pool, partial(letterbox, size=size), split.pictures):
            on_step()
            add(canvas)


def _in_order(
    pool: Executor, make: Callable[[Picture], NDArray[np.uint8]], pictures: Sequence[Picture]
) -> Iterator[NDArray[np.uint8]]:
    """What each picture is made into, in order, at most AHEAD of them waiting to be used."""
    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    try:
        for picture in pictures:
            waiting.append(pool.submit(make, picture))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def cache_folder() -> Path:
    """Where this machine keeps what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unfreeze"
