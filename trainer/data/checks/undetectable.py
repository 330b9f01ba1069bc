"""Objects that a model cannot detect: too small for its canvas, or too many on a picture."""

import numpy as np
from numpy.typing import NDArray

from ...config import Model
from ..dataset import Picture
from ..findings import Findings, Place
from ..formats.records import Records
from .columns import Columns, mark

LEAST_SIDE = 2.0
"""Pixels on the canvas. Of an object with a shorter side than this no shape is left."""
WRONG_UNITS = {"boxes-normalised", "boxes-in-pixels", "boxes-are-corners"}
"""After a finding with one of these codes the sizes of boxes say nothing."""


def check_undetectable(
    records: Records,
    columns: Columns,
    sizes: NDArray[np.float64],
    model: Model,
    findings: Findings,
) -> None:
    """Report objects too small for a model's canvas, and pictures with too many objects.

    Args:
        records: What the split's files say.
        columns: Its boxes.
        sizes: (n, 2) width and height of each picture in pixels.
        model: Has the canvas and the limit of detections.
        findings: Gets what is wrong.
    """
    objects = columns.sound & ~columns.crowd
    fractions = columns.boxes[:, 2:] / sizes[columns.image].max(axis=1)[:, None]
    sides = model.image_size * fractions  # on the canvas

    def size_text(i: int) -> str:
        width, height = sides[i]
        return f"{width:.3g} x {height:.3g} px on a canvas of {model.image_size} px"

    if not any(f.code in WRONG_UNITS and f.split == records.name for f in findings.errors):
        vanishing = objects & (sides.min(axis=1) < LEAST_SIDE)
        mark("box-vanishing", records, columns, findings, vanishing, size_text, drop=False)
    counts = np.bincount(columns.image[objects], minlength=len(records.images))

    def place(i: int) -> Place:
        text = f"{counts[i]} objects, at most {model.detections} can be detected"
        return Place(records.images[i].file_name, records.images[i].id, detail=text)

    too_many = np.flatnonzero(counts > model.detections).tolist()
    findings.add_at("many-objects", records.name, records.source, too_many, place)


def needed_canvases(pictures: list[Picture]) -> NDArray[np.float64]:
    """The smallest canvas, in pixels, on which each object is still large enough."""
    needed = [
        LEAST_SIDE * max(picture.width, picture.height) / box[2:].min()
        for picture in pictures
        for box in picture.boxes[~picture.crowd]
    ]
    return np.array(needed, dtype=np.float64)


def most_objects(pictures: list[Picture]) -> int:
    """The largest number of objects on one picture."""
    return max(int((~picture.crowd).sum()) for picture in pictures)
