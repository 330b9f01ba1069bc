"""How fast an epoch is scored: hotcoco against pycocotools, on the same boxes.

    python benchmarks/evaluate.py [--images 5000] [--runs 3]

The data set is random with a seed: 80 classes, 7 boxes a picture, a detection of each, and a wrong
one in every fifth picture. 36,000 detections on 5,000 pictures are the size of COCO's val2017. Both
sides take part in each run; all figures must be the same to the bit. The last line is the figures
as one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.dataset import Category, Picture, Split
from trainer.evaluation.coco_metrics import GroundTruth, Metrics, score, score_finally

CLASSES = 80


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    split, results = random_data(options.images)
    ratios, seconds = [], []
    for _ in range(options.runs):
        fast, ours = timed(lambda: score(GroundTruth(split), results))
        slow, finals = timed(lambda: score_finally(split, results))
        assert ours == finals, "the figures differ"
        seconds.append((fast, slow))
        ratios.append(slow / fast)
        print(f"hotcoco {fast:.2f} s, pycocotools {slow:.2f} s: {slow / fast:.1f} times")
    print(
        json.dumps(
            {
                "images": options.images,
                "detections": len(results),
                "seconds": [[round(value, 3) for value in pair] for pair in seconds],
                "ratios": [round(ratio, 1) for ratio in sorted(ratios)],
                "same_bits": True,
            }
        )
    )


def timed(work: Callable[[], Metrics]) -> tuple[float, Metrics]:
    """Seconds of some work, and its result."""
    started = time.perf_counter()
    metrics = work()
    return time.perf_counter() - started, metrics


def random_data(images: int) -> tuple[Split, list[dict[str, Any]]]:
    """Boxes, and detections that are shifted, of the wrong class, or of no box."""
    draw = np.random.default_rng(0)
    pictures: list[Picture] = []
    results: list[dict[str, Any]] = []
    for id in range(1, images + 1):
        sizes = np.exp(draw.uniform(np.log(8), np.log(300), (7, 2)))
        boxes = np.concatenate(
            [draw.uniform(0, [640, 480] - np.minimum(sizes, 479)), sizes], axis=1
        )
        labels = draw.integers(1, CLASSES + 1, len(boxes))
        crowd = draw.random(len(boxes)) < 0.01
        areas = sizes.prod(axis=1)
        pictures.append(Picture(id, Path(str(id)), 640, 480, str(id), boxes, areas, labels, crowd))
        shifted = boxes + draw.normal(0, 0.1, boxes.shape) * np.tile(sizes, 2)
        wrong = draw.random(len(boxes)) < 0.1
        named = np.where(wrong, draw.integers(1, CLASSES + 1, len(boxes)), labels)
        detected = [*zip(np.abs(shifted).tolist(), named.tolist(), strict=True)]
        if id % 5 == 0:
            detected.append(([320.0, 240.0, 64.0, 48.0], int(draw.integers(1, CLASSES + 1))))
        for box, label in detected:
            certainty = round(float(draw.random()), 3)  # rounded: evaluators may differ in ties
            results.append({"image_id": id, "category_id": label, "bbox": box, "score": certainty})
    categories = tuple(Category(id, str(id)) for id in range(1, CLASSES + 1))
    return Split("val", tuple(pictures), categories), results


if __name__ == "__main__":
    main()
