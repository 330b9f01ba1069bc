"""How fast the figures of an epoch are made: hotcoco's against pycocotools', on the same boxes.

    python benchmarks/evaluate.py [--images 5000] [--runs 3]

80 classes, 7 boxes a picture and detections of each, of nothing in every fifth one, made up with a
seed: 36,000 on 5,000 pictures, as COCO's val2017 in size. Both sides in each run; asserts that all
figures are the same bits. The last line is the figures as one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.dataset import Category, Picture, Split
from trainer.evaluation.coco_metrics import Metrics, Truth, score, score_finally

CLASSES = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    split, results = make_up(options.images)
    ratios, seconds = [], []
    for _ in range(options.runs):
        fast, ours = timed(lambda: score(Truth(split), results))
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
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def make_up(images: int) -> tuple[Split, list[dict[str, Any]]]:
    """Boxes, and detections of them that are shifted, of the wrong class, or of nothing."""
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
        found = [*zip(np.abs(shifted).tolist(), named.tolist(), strict=True)]
        if id % 5 == 0:
            found.append(([320.0, 240.0, 64.0, 48.0], int(draw.integers(1, CLASSES + 1))))
        for box, label in found:
            certainty = round(float(draw.random()), 3)  # ties are where evaluators differ
            results.append({"image_id": id, "category_id": label, "bbox": box, "score": certainty})
    categories = tuple(Category(id, str(id)) for id in range(1, CLASSES + 1))
    return Split("val", tuple(pictures), categories), results


if __name__ == "__main__":
    main()
