"""Canvases: every picture letterboxed to a square of fixed size.

A canvas holds the picture at its top left, scaled to fit; the rest is grey. Since the canvas is
fixed, what a detector sees of one picture never depends on the rest of its batch.
"""

import hashlib
import io
import os
from dataclasses import dataclass
from errno import ENOMEM
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import InputError
from .dataset import Picture
from .pixels import FORMATS, GREY, to_rgb

CHANGED = (
    "was changed after the data set was checked, so its boxes may be of another picture; put the "
    "old file back, or run `unfreeze check` and start a new search"
)


@dataclass(frozen=True)
class Canvas:
    """One picture on its canvas."""

    pixels: NDArray[np.uint8]
    """(size, size, 3) RGB."""
    scale: tuple[float, float]
    """Canvas pixels per picture pixel, across and down."""


def to_canvas(picture: Image.Image, size: int) -> Canvas:
    """Letterbox an upright RGB picture."""
    scaled = picture.resize(fitted(*picture.size, size), Image.Resampling.BILINEAR)
    pixels = np.full((size, size, 3), GREY, dtype=np.uint8)
    pixels[: scaled.height, : scaled.width] = np.asarray(scaled)
    return Canvas(pixels, scales(*picture.size, size))


def fitted(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height of a picture on its canvas, at least one pixel each."""
    scale = min(size / width, size / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def scales(width: int, height: int, size: int) -> tuple[float, float]:
    """Canvas pixels per picture pixel, across and down."""
    across, down = fitted(width, height, size)
    return across / width, down / height


def letterbox(picture: Picture, size: int) -> NDArray[np.uint8]:
    """One picture of a data set on its canvas, (size, size, 3). Raises as `open_picture` does."""
    return to_canvas(open_picture(picture.file, picture.sha256), size).pixels


def open_picture(file: Path, sha256: str | None = None) -> Image.Image:
    """Open a picture, upright and in RGB.

    Raises:
        InputError: The file cannot be read, or has another digest than the one given.
    """
    try:
        content = file.read_bytes()
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise InputError([f"{file}: {CHANGED}"])
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            return to_rgb(opened)
    except InputError:
        raise
    except Exception as error:  # a broken file makes Pillow raise almost anything
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == ENOMEM:
            raise  # not the picture's fault
        raise InputError([f"{file}: cannot be read as a picture ({error})"]) from error


def cache_folder() -> Path:
    """Where this machine keeps what can be made again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "unfreeze"
