"""The picture of a data set shows what is in it."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from trainer.config import Model
from trainer.data.checks.overview import _draw_sizes, objects_a_class
from trainer.data.dataset import Picture, Split


@pytest.mark.parametrize("side", [1.0, 12.0, 90.0, 4000.0])
def test_boxes_of_any_size_are_in_the_chart(
    make_picture: Callable[..., Picture], make_split: Callable[..., Split], side: float
) -> None:
    boxes = [(1.0, 0.0, 0.0, side, side), (1.0, 0.0, 0.0, side * 0.9, side)]
    axes = Figure().subplots()
    _draw_sizes(axes, [make_split(make_picture(1, boxes, size=(4000, 4000)))], Model())
    (outline,) = axes.patches
    assert isinstance(outline, Polygon)
    steps = np.asarray(outline.get_xy())
    left, right = axes.get_xlim()
    assert left < side * 320 / 4000 < right
    bins = steps[1::2]
    assert bins[:, 1].sum() == pytest.approx(1)


def test_crowds_and_what_is_ignored_are_no_objects_of_a_class(
    make_picture: Callable[..., Picture], make_split: Callable[..., Split]
) -> None:
    boxes = [(1, 5, 5, 10, 10), (1, 20, 20, 10, 10), (2, 40, 40, 10, 10)]
    split = make_split(make_picture(1, boxes, crowd=(1, 2)), make_picture(2, boxes[:1]))
    assert objects_a_class(split) == {1: 2}
