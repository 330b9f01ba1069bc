"""How boxes are drawn on pictures of any size."""

import numpy as np
import pytest
from PIL import Image

from trainer.data.dataset import Category
from trainer.evaluation.drawing import SMALL, Box, draw

RED, BLUE = Category(3, "red"), Category(7, "blue")


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((40, 30), (480, 360)), ((900, 20), (7200, 160)), ((60, 4000), (120, 8000)), ((9, 9000),) * 2],
)
def test_small_pictures_are_enlarged(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert draw(Image.new("RGB", size), []).size == drawn
    assert max(drawn) >= SMALL


def test_a_true_box_has_no_score() -> None:
    def drawn(score: float | None) -> int:
        plain, box = Image.new("RGB", (500, 500)), Box(RED, score, (0.0, 100.0, 9.0, 9.0))
        return int(np.asarray(draw(plain, [box])).any(axis=(0, 2)).sum())

    assert drawn(None) < drawn(1.0) / 1.5


@pytest.mark.parametrize("size", [(30, 30), (640, 480), (4000, 3000)])
def test_a_label_can_be_read_at_any_size(size: tuple[int, int]) -> None:
    width, height = size
    box = Box(RED, 0.87, (0.5 * width, 0.0, 0.5 * width, 0.9 * height))  # no room above
    plain = draw(Image.new("RGB", size), [])
    changed = np.asarray(draw(Image.new("RGB", size), [box])) != np.asarray(plain)
    inked = changed.any(axis=2)
    assert inked.any(axis=1).nonzero()[0][0] == 0
    top = inked[: max(14, plain.height // 45)]  # the label's line: filled from its left end
    assert top.any(axis=0).sum() > 0.08 * plain.width
