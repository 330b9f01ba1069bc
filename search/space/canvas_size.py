"""The canvas size that `unfreeze init` chooses: large enough to show the objects of a data set."""

from math import ceil
from statistics import median

import numpy as np
from numpy.typing import NDArray

from trainer.data.checks.undetectable import LEAST_SIDE, needed_canvases
from trainer.data.dataset import Picture, Splits

MEDIAN_SIDE = 32
"""Pixels on the canvas of a median object's side, which the chosen size aims at."""
LARGEST = 1024
"""The largest canvas, in pixels a side, that is chosen for objects that would vanish. A step on it
takes ten times as long as on one of 320."""
FEW = 0.01
"""Share of objects that may vanish before a larger canvas is chosen."""


def choose_canvas_size(splits: Splits, gpu: bool) -> tuple[int, list[str]]:
    """Choose `image_size`, in pixels a side, and say what it costs or does not show.

    Objects whose shorter side is under 2 pixels on the canvas vanish. Where many would, a larger
    canvas is chosen, up to LARGEST.
    """
    needed = needed_canvases(every_picture(splits))
    before = _size_for_median(splits, gpu)
    size = _enlarged(before, needed)
    notes = []
    if size > before:
        vanishing = int((needed > before).sum())
        notes.append(
            f"image_size is {size}: on {before} px {vanishing} of {len(needed)} objects would have "
            f"a side under {LEAST_SIDE:.0f} pixels; a step takes about {(size / before) ** 2:.1f} "
            "times as long"
        )
    if vanishing := int((needed > size).sum()):
        why = (
            f"a canvas of {ceil(needed.max())} px, which would show all, is too slow to be chosen "
            "for you; cut the pictures into tiles, or write a larger image_size"
            if needed.max() > LARGEST
            else "too few to pay for a larger one"
        )
        notes.append(
            f"on a canvas of {size} px {vanishing} of {len(needed)} objects have a side under "
            f"{LEAST_SIDE:.0f} pixels: {why}"
        )
    return size, notes


def every_picture(splits: Splits) -> list[Picture]:
    """The pictures of all splits."""
    return [p for s in (splits.train, splits.val, splits.test) if s for p in s.pictures]


def _size_for_median(splits: Splits, gpu: bool) -> int:
    """The size at which a median object's side is MEDIAN_SIDE, within what the machine can train.

    It is a multiple of 32, and no larger than the pictures.
    """
    sides = [
        (box[2] * box[3]) ** 0.5 / max(p.width, p.height)
        for p in splits.train.pictures
        for box in p.boxes
    ]
    largest = 640 if gpu else 320
    wanted = MEDIAN_SIDE / median(sides)
    longest = max(max(p.width, p.height) for p in splits.train.pictures)
    least = 320 if longest >= 320 else 128
    return int(min(largest, max(least, round(min(wanted, longest) / 32) * 32)))


def _enlarged(size: int, needed: NDArray[np.float64]) -> int:
    """The size, or a larger one where many objects would vanish and a larger canvas shows them."""
    within = needed[needed <= LARGEST]
    if (needed > size).sum() <= FEW * len(needed) or not (within > size).any():
        return size
    return max(size, 32 * ceil(np.quantile(within, 1 - FEW, method="higher") / 32))
