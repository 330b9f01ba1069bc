"""From which score on a detection counts: AP needs the whole curve, a user one point of it."""

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.dataset import Split
from .coco_metrics import as_coco

DEFAULT = 0.5
"""Where nothing is known of a class: no box of it on val, or none found."""
IOU = 0.5
"""From which overlap with a true box on a detection is right."""


def best_thresholds(split: Split, results: list[dict[str, Any]]) -> dict[str, float]:
    """The score threshold of each class, by name, with the best F1 on a split.

    `results` are its detections in COCO's result format; pycocotools matches them at an IoU of 0.5.
    """
    thresholds = {category.name: DEFAULT for category in split.categories}
    if not results:  # pycocotools' loadRes fails on an empty list
        return thresholds
    for category in split.categories:
        scores, right, true_boxes = _matched(split, results, category.id)
        if right.any():
            thresholds[category.name] = _best_threshold(scores, right, true_boxes)
    return thresholds


def _matched(
    split: Split, results: list[dict[str, Any]], category: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """A class's scores, which of them are right, and the number of its true boxes."""
    truth = COCO()
    truth.dataset = as_coco(split)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints unasked
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes([dict(result) for result in results]), "bbox")
        run.params.catIds = [category]
        run.params.iouThrs = np.array([IOU])
        run.params.maxDets = [len(results)]  # all count, not the 100 best of COCO
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
    pictures = [picture for picture in run.evalImgs if picture is not None]
    counted = [~np.asarray(p["dtIgnore"][0], dtype=bool) for p in pictures]  # not on a crowd
    scores = [np.asarray(p["dtScores"])[c] for p, c in zip(pictures, counted, strict=True)]
    right = [p["dtMatches"][0][c] > 0 for p, c in zip(pictures, counted, strict=True)]
    true_boxes = sum(int((np.asarray(p["gtIgnore"]) == 0).sum()) for p in pictures)
    return np.concatenate([*scores, []]), np.concatenate([*right, []]).astype(bool), true_boxes


def _best_threshold(
    scores: NDArray[np.float64], right: NDArray[np.bool_], true_boxes: int
) -> float:
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], right[order].cumsum()
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + true_boxes)
    below = np.append(scores[1:], 0.0)
    f1[scores == below] = 0  # no threshold parts equal scores
    best = int(f1.argmax())
    # half way to the next score, so that rounding elsewhere loses no box
    return round(float(scores[best] + below[best]) / 2, 4)
