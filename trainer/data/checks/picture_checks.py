"""Checks of decoded pictures against what is declared of them."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..findings import Findings, Place
from ..formats.records import ImageRecord, Records
from .columns import Columns
from .decoding_cache import PictureFacts

LEAST_SIDE = 10
"""Pixels."""


def check_pictures(
    records: Records, facts: list[PictureFacts | None], columns: Columns, findings: Findings
) -> NDArray[np.float64]:
    """Check what was decoded of each picture (None: no file) against what is declared.

    If the user allows it, boxes on unrotated pixels are rotated with their pictures.

    Returns:
        (n, 2) widths and heights of the upright pictures, NaN for those that cannot be used.
    """
    images = records.images
    files = [(i, f) for i, f in enumerate(facts) if f is not None]
    usable = [(i, f) for i, f in files if not f.problem]

    def add(code: str, details: Iterable[tuple[int, str]]) -> None:
        places = (Place(images[i].file_name, images[i].id, detail=text) for i, text in details)
        findings.add(code, records.name, records.source, places)

    for code in sorted({f.problem for _, f in files if f.problem}):
        add(code, ((i, f.detail) for i, f in files if f.problem == code))
    for code in sorted({code for _, f in usable for code in f.pixels}):
        add(code, ((i, "") for i, f in usable if code in f.pixels))
    add("picture-extension", ((i, text) for i, f in usable if (text := _misnamed(images[i], f))))
    tiny = ((i, _size_text(f.upright)) for i, f in usable if min(f.upright) < LEAST_SIDE)
    add("picture-tiny", tiny)
    unrotated = {i for i, f in usable if _is_unrotated(images[i], f)}
    add("size-unturned", ((i, _declared(images[i])) for i in sorted(unrotated)))
    others = [(i, f) for i, f in usable if i not in unrotated]
    add("size-wrong", ((i, text) for i, f in others if (text := _wrong_size(images[i], f))))
    add("picture-turned", ((i, "") for i, f in others if f.orientation != 1))
    sizes = np.full((len(images), 2), np.nan)
    for i, f in usable:
        sizes[i] = f.upright
        if i in unrotated:
            rows = np.flatnonzero(columns.image == i)
            columns.boxes[rows] = rotated(columns.boxes[rows], f)
    return sizes


def declared_sizes(records: Records) -> NDArray[np.float64]:
    """The declared (n, 2) widths and heights, NaN if unknown; no picture is opened."""
    sizes = [(image.width, image.height) for image in records.images]
    return np.array([s if _are_sizes(s) else (np.nan, np.nan) for s in sizes], dtype=np.float64)


def rotated(boxes: NDArray[np.float64], facts: PictureFacts) -> NDArray[np.float64]:
    """Boxes (m, 4) on a picture's stored pixels as they lie on the upright picture."""
    x1, y1 = boxes[:, 0], boxes[:, 1]
    x2, y2 = x1 + boxes[:, 2], y1 + boxes[:, 3]
    width, height = facts.stored
    if facts.orientation in (2, 3, 7, 8):  # stored mirrored left to right
        x1, x2 = width - x2, width - x1
    if facts.orientation in (3, 4, 6, 7):  # stored mirrored top to bottom
        y1, y2 = height - y2, height - y1
    if facts.orientation >= 5:  # then x and y change places
        x1, y1, x2, y2 = y1, x1, y2, x2
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def _misnamed(image: ImageRecord, facts: PictureFacts) -> str:
    """What the content is, if the suffix is of another format."""
    suffix = os.path.splitext(image.file_name)[1].lower()  # noqa: PTH122 - of text, not a path
    named = Image.registered_extensions().get(suffix)
    named, content = ("JPEG" if f == "MPO" else f for f in (named, facts.format))
    return f"is {content}" if named != content else ""


def _wrong_size(image: ImageRecord, facts: PictureFacts) -> str:
    """The declared and the real size, if they differ."""
    declared = (image.width, image.height)
    if declared == (None, None) or declared == facts.upright:
        return ""
    swapped = " (swapped)" if declared == facts.upright[::-1] else ""
    return f"{_declared(image)}, is {_size_text(facts.upright)}{swapped}"


def _is_unrotated(image: ImageRecord, facts: PictureFacts) -> bool:
    declared = (image.width, image.height)
    return facts.orientation >= 5 and declared == facts.stored != facts.upright


def _declared(image: ImageRecord) -> str:
    return f"declared {image.width} x {image.height}"


def _size_text(size: Sequence[float]) -> str:
    return f"{size[0]:g} x {size[1]:g}"


def _are_sizes(values: tuple[object, object]) -> bool:
    return all(isinstance(v, int | float) and 0 < v < 2**31 for v in values)
