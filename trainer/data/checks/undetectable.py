"""What a model would not see of a data set: objects too small for its canvas, or one too many."""

import numpy as np
from numpy.typing import NDArray

from ...config import Model
from ..dataset import Picture
from ..findings import Findings, Place
from ..formats.records import Records
from .validate import Columns, mark

LEAST_SIDE = 2.0
"""Pixels on the canvas of an object's shorter side, below which nothing is left of its shape."""
MISREAD = {"boxes-normalised", "boxes-in-pixels", "boxes-are-corners"}
"""Codes of findings after which the sizes of boxes say nothing."""


def check_unseen(
    records: Records,
    columns: Columns,
    sizes: NDArray[np.float64],
    model: Model,
    findings: Findings,
) -> None:
    """Find objects that vanish on the canvas of a model, given the (n, 2) sizes of the pictures,
    and pictures with more objects than it finds."""
    objects = columns.sound & ~columns.crowd
    shares = columns.boxes[:, 2:] / sizes[columns.image].max(axis=1)[:, None]
    sides = model.image_size * shares  # on the canvas

    def shown(i: int) -> str:
        width, height = sides[i]
        return f"{width:.3g} x {height:.3g} px on a canvas of {model.image_size} px"

    if not any(f.code in MISREAD and f.split == records.name for f in findings.errors):
        vanishing = objects & (sides.min(axis=1) < LEAST_SIDE)
        mark("box-vanishing", records, columns, findings, vanishing, shown, drop=False)
    counts = np.bincount(columns.image[objects], minlength=len(records.images))

    def counted(i: int) -> Place:
        text = f"{counts[i]} objects, at most {model.detections} are found"
        return Place(records.images[i].file_name, records.images[i].id, detail=text)

    beyond = np.flatnonzero(counts > model.detections).tolist()
    findings.add_at("many-objects", records.name, records.source, beyond, counted)


def needed_canvases(pictures: list[Picture]) -> NDArray[np.float64]:
    """For each object the smallest canvas, in pixels, on which it does not vanish."""
    needed = [
        LEAST_SIDE * max(picture.width, picture.height) / box[2:].min()
        for picture in pictures
        for box in picture.boxes[~picture.crowd]
    ]
    return np.array(needed, dtype=np.float64)


def most_objects(pictures: list[Picture]) -> int:
    """Of one picture."""
    return max(int((~picture.crowd).sum()) for picture in pictures)
