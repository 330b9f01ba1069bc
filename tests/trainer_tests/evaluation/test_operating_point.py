"""The score threshold of each class with the best F1."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trainer.evaluation.operating_point import DEFAULT_THRESHOLD, best_thresholds

Make = Callable[..., Any]


def result(category: int, x: float, score: float, image: int = 1) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [x, 0.0, 10.0, 10.0],
        "score": score,
    }


def test_it_lies_between_the_last_useful_score_and_the_next(
    make_split: Make, make_picture: Make
) -> None:
    split = make_split(make_picture(boxes=[(1, 0, 0, 10, 10), (1, 30, 0, 10, 10)]))
    results = [result(3, 0, 0.9), result(3, 30, 0.6), result(3, 60, 0.4), result(3, 80, 0.3)]
    assert best_thresholds(split, results)["red"] == 0.5


def test_more_boxes_than_coco_counts_have_a_say(make_split: Make, make_picture: Make) -> None:
    split = make_split(make_picture(boxes=[(1, 20 * i, 0, 10, 10) for i in range(150)]))
    results = [result(3, 20 * i, 0.9 - 0.002 * i) for i in range(150)]
    assert best_thresholds(split, results)["red"] == pytest.approx(
        (0.9 - 0.002 * 149) / 2, abs=1e-4
    )


def test_a_false_box_is_worth_a_later_right_one(make_split: Make, make_picture: Make) -> None:
    boxes = [(1, x, 0, 10, 10) for x in (0, 30, 60)]
    split = make_split(make_picture(boxes=boxes))
    results = [result(3, 0, 0.9), result(3, 80, 0.8), result(3, 30, 0.7), result(3, 60, 0.2)]
    assert best_thresholds(split, results)["red"] == 0.1


def test_each_class_has_another_and_an_unknown_one_the_default(
    make_split: Make, make_picture: Make
) -> None:
    split = make_split(make_picture(boxes=[(1, 0, 0, 10, 10)]), make_picture(2))
    results = [result(3, 0, 0.9), result(3, 0, 0.3, image=2), result(7, 0, 0.8)]
    assert best_thresholds(split, results) == {"red": pytest.approx(0.6), "blue": DEFAULT_THRESHOLD}
    assert best_thresholds(split, []) == {"red": DEFAULT_THRESHOLD, "blue": DEFAULT_THRESHOLD}


def test_equal_scores_are_not_parted(make_split: Make, make_picture: Make) -> None:
    split = make_split(make_picture(boxes=[(1, 0, 0, 10, 10), (1, 30, 0, 10, 10)]))
    results = [result(3, 0, 0.8), result(3, 30, 0.4), result(3, 60, 0.4), result(3, 80, 0.2)]
    assert best_thresholds(split, results)["red"] == pytest.approx(0.3)


def test_a_box_on_a_crowd_counts_neither_way(make_split: Make, make_picture: Make) -> None:
    boxes = [(1, 0, 0, 10, 10), (1, 40, 0, 50, 50)]
    split = make_split(make_picture(boxes=boxes, crowd=(1,)))
    results = [result(3, 0, 0.4), result(3, 45, 0.9), result(3, 60, 0.8)]
    assert best_thresholds(split, results)["red"] == 0.2


def test_the_threshold_of_a_class_does_not_depend_on_the_others(
    make_split: Make, make_picture: Make
) -> None:
    draw = np.random.default_rng(0)
    pictures, results = [], []
    for image in range(12):
        boxes = [
            (int(draw.integers(1, 3)), float(x), 0.0, 10.0, 10.0)
            for x in draw.uniform(0, 80, int(draw.integers(0, 8)))
        ]
        pictures.append(make_picture(image, boxes, crowd=(0,) if image % 4 == 0 else ()))
        for label, x, *_ in boxes:
            for category in (3, 7):
                score = round(float(draw.random()), 2) + (label == (category == 7) + 1)
                results.append(result(category, x + float(draw.normal()), score / 2, image))
    split = make_split(*pictures)
    thresholds = best_thresholds(split, results)
    for category, name in ((3, "red"), (7, "blue")):
        alone = [each for each in results if each["category_id"] == category]
        assert best_thresholds(split, alone)[name] == thresholds[name] != DEFAULT_THRESHOLD
