"""Checks of boxes against the sizes of their pictures."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..findings import Findings, Place
from ..formats.records import Records
from .columns import Columns, box_text, mark

LEAST_INSIDE = 0.2
"""A box with less than this fraction of its area inside its picture is an error."""
ROUNDING = 1.0
"""Pixels that a box may reach out of its picture unreported: tools round, and count from 1."""
SUSPECT, EVIDENCE = 0.2, 4
"""Boxes may be corners if this fraction of them, and at least this number, leave their pictures."""


def check_boxes(
    records: Records, columns: Columns, sizes: NDArray[np.float64], findings: Findings
) -> None:
    """Check boxes against the sizes of their pictures.

    Args:
        records: What the split's files say.
        columns: Its boxes. Relative ones are changed to pixels; bad ones are masked out.
        sizes: (n, 2) width and height of each picture, NaN if unknown.
        findings: Gets what is wrong.
    """
    size = sizes[columns.image]  # (m, 2) of each box's picture
    size[columns.image < 0] = np.nan
    slack = ROUNDING
    if records.relative:
        if _look_like_pixels(records, columns, findings):
            return
        if np.isnan(sizes).all():  # no picture was decoded: take each as a square of side 1
            size, slack = np.ones_like(size), 0.01
        columns.boxes *= np.tile(size, 2)
    elif _look_normalised(records, columns, findings):
        return
    known = columns.sound & np.isfinite(size).all(axis=1)
    if _look_like_corners(records, columns, size, known, findings):
        return
    _check_inside(records, columns, size, known, slack, findings)
    repeated = _repeated(columns)
    mark("box-twice", records, columns, findings, repeated, _detail(columns, size), drop=False)


def _check_inside(
    records: Records,
    columns: Columns,
    size: NDArray[np.float64],
    known: NDArray[np.bool_],
    slack: float,
    findings: Findings,
) -> None:
    """Report boxes outside their pictures; drop those that are completely outside."""
    first = columns.boxes[:, :2]
    last = first + columns.boxes[:, 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.minimum(last, size) - np.maximum(first, 0)
        fraction = inside.clip(0).prod(axis=1) / columns.boxes[:, 2:].prod(axis=1)
        outside = known & (inside <= 0).any(axis=1)
        beyond = ((first < -slack) | (last > size + slack)).any(axis=1)
    mostly = known & ~outside & (fraction < LEAST_INSIDE)
    partly = known & ~outside & ~mostly & beyond
    detail = _detail(columns, size)
    mark("box-outside", records, columns, findings, outside, detail)
    mark("box-mostly-outside", records, columns, findings, mostly, detail, drop=False)
    mark("box-partly-outside", records, columns, findings, partly, detail, drop=False)


def _detail(columns: Columns, size: NDArray[np.float64]) -> Callable[[int], str]:
    def text(i: int) -> str:
        return f"{box_text(columns.boxes[i].tolist())} in {size[i][0]:g} x {size[i][1]:g}"

    return text


def _repeated(columns: Columns) -> NDArray[np.bool_]:
    """Which sound boxes (m,) repeat an earlier one: its picture, class and four numbers."""
    rows = np.flatnonzero(columns.sound & ~columns.crowd)
    keys = np.column_stack([columns.image, columns.category, columns.boxes])[rows]
    order = np.lexsort(keys.T)  # stable: of equal boxes the first stays first
    equal = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    repeated = np.zeros(len(columns.sound), dtype=np.bool_)
    repeated[rows[order[1:][equal]]] = True
    return repeated


# -- boxes of a split in other units --------------------------------------------------------------


def _look_normalised(records: Records, columns: Columns, findings: Findings) -> bool:
    boxes = columns.boxes[columns.sound]
    small = np.all(np.abs(boxes) <= 1, axis=1)
    most = small.sum() > 0.9 * len(boxes)
    return _report_units("boxes-normalised", records, findings, boxes, small, most)


def _look_like_pixels(records: Records, columns: Columns, findings: Findings) -> bool:
    boxes = columns.boxes[columns.sound]
    large = np.any(np.abs(boxes) > 2, axis=1)
    most = large.sum() > 0.5 * len(boxes)
    return _report_units("boxes-in-pixels", records, findings, boxes, large, most)


def _look_like_corners(
    records: Records,
    columns: Columns,
    size: NDArray[np.float64],
    known: NDArray[np.bool_],
    findings: Findings,
) -> bool:
    """Many boxes leave their pictures, but all would lie inside as x1, y1, x2, y2."""
    boxes, sizes = columns.boxes[known], size[known]
    out = np.any(boxes[:, :2] + boxes[:, 2:] > sizes + ROUNDING, axis=1)
    corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + ROUNDING)
    suspect = len(boxes) >= EVIDENCE and out.mean() >= SUSPECT and corners.all(axis=1).mean() > 0.99
    return _report_units("boxes-are-corners", records, findings, boxes, out, bool(suspect))


def _report_units(
    code: str,
    records: Records,
    findings: Findings,
    boxes: NDArray[np.float64],
    which: NDArray[np.bool_],
    suspect: bool,
) -> bool:
    """Report suspect boxes; True if the user does not allow them, so that checks end here."""
    if not len(boxes) or not suspect:
        return False
    text = f"{int(which.sum())} of {len(boxes)} boxes, as {box_text(boxes[which][0].tolist())}"
    findings.add(code, records.name, records.source, [Place(detail=text)])
    return code not in findings.allow
