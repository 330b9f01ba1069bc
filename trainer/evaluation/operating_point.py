"""The score from which a detection counts: AP needs the full curve, a user one point of it."""

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.dataset import Split
from .coco_metrics import as_coco

DEFAULT_THRESHOLD = 0.5
"""The threshold of a class without a box or a correct detection on val."""
IOU = 0.5
"""The least overlap of a correct detection with a true box."""


def best_thresholds(split: Split, results: list[dict[str, Any]]) -> dict[str, float]:
    """The score threshold of each class, by name, with the best F1 on a split.

    `results` are its detections in COCO's result format. pycocotools matches them at an IoU of 0.5.
    """
    thresholds = {category.name: DEFAULT_THRESHOLD for category in split.categories}
    if not results:  # pycocotools' loadRes fails on an empty list
        return thresholds
    matches = _match(split, results)
    for category in split.categories:
        scores, correct, true_boxes = _of_class(matches, category.id)
        if correct.any():
            thresholds[category.name] = _best_threshold(scores, correct, true_boxes)
    return thresholds


def _match(split: Split, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pycocotools' matches, one for each class on each picture."""
    truth = COCO()
    truth.dataset = as_coco(split)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints unasked
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([dict(result) for result in results]), "bbox")
        run.params.iouThrs = np.array([IOU])
        run.params.maxDets = [len(results)]  # all count, not the 100 best of COCO
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
    return [each for each in run.evalImgs if each is not None]


def _of_class(
    matches: list[dict[str, Any]], category: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """A class's scores (n,), which of them are correct (n,), and the number of its true boxes."""
    pictures = [each for each in matches if each["category_id"] == category]
    counted = [~np.asarray(p["dtIgnore"][0], dtype=bool) for p in pictures]  # not on a crowd
    scores = [np.asarray(p["dtScores"])[c] for p, c in zip(pictures, counted, strict=True)]
    correct = [p["dtMatches"][0][c] > 0 for p, c in zip(pictures, counted, strict=True)]
    true_boxes = sum(int((np.asarray(p["gtIgnore"]) == 0).sum()) for p in pictures)
    return np.concatenate([*scores, []]), np.concatenate([*correct, []]).astype(bool), true_boxes


def _best_threshold(
    scores: NDArray[np.float64], correct: NDArray[np.bool_], true_boxes: int
) -> float:
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], correct[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + true_boxes)
    below = np.append(scores[1:], 0.0)
    f1[scores == below] = 0  # no threshold separates equal scores
    best = int(f1.argmax())
    # half way to the next score, so that rounding elsewhere loses no box
    return round(float(scores[best] + below[best]) / 2, 4)
