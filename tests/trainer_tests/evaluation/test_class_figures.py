"""Figures of each class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.evaluation.class_figures import class_figures
from trainer.evaluation.coco_metrics import GroundTruth

Make = Callable[..., Any]


def detection(image: int, category: int, *box: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": 0.9}


@pytest.mark.parametrize("results", [[], [detection(1, 7, 10, 10, 20, 20)]])
def test_a_class_without_boxes_has_no_figures_whatever_is_detected(
    make_picture: Make, make_split: Make, tmp_path: Path, results: list[Any]
) -> None:
    truth = GroundTruth(make_split(make_picture(1, [(1, 10, 10, 20, 20)])))
    table, curves = class_figures(truth, results, 100)
    assert curves.startswith(b"\x89PNG")
    assert table["data"] == [["red", 1, 0.0, 0.0], ["blue", 0, None, None]]
