"""COCO figures of detections on a split.

Each epoch is scored by hotcoco, which gives the bits of pycocotools in a hundredth of its time
(`benchmarks/evaluate.py`). Final figures are scored by pycocotools itself.
"""

import contextlib
import io
from dataclasses import dataclass, field
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.dataset import Split
from ..model.heads import DEFAULT_DETECTIONS, Detect
from .detections import detect_singly

FIGURES = (
    "map",
    "map_50",
    "map_75",
    "map_small",
    "map_medium",
    "map_large",
    "mar_1",
    "mar_10",
    "mar_100",
    "mar_small",
    "mar_medium",
    "mar_large",
)
"""The 12 COCO figures in the order of pycocotools."""
LIMITS = [1, 10, DEFAULT_DETECTIONS]
"""How many detections of a class on a picture COCO counts."""


@dataclass(frozen=True)
class Metrics:
    """COCO figures of one evaluation; None if the split has nothing to measure."""

    figures: dict[str, float | None]
    """By name, see FIGURES."""
    per_class: dict[str, float | None]
    """AP (IoU .50 to .95) by class name."""
    detections: int = DEFAULT_DETECTIONS
    """The most detections that the detector gives for a picture."""
    at_detections: dict[str, float | None] = field(default_factory=dict)
    """The figures with all of these counted, for example `mar_300` for 300; empty if they are no
    more than COCO counts."""

    def __getitem__(self, name: str) -> float:
        """A figure with all detections counted."""
        return (self.figures | self.at_detections)[name] or 0.0


class GroundTruth:
    """The ground truth of a split, indexed once for many evaluations."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.coco = hotcoco.COCO(as_coco(split))


def as_coco(split: Split) -> dict[str, Any]:
    """A split as the content of a COCO json."""
    return {
        "images": [{"id": p.id, "width": p.width, "height": p.height} for p in split.pictures],
        "categories": [{"id": c.id, "name": c.name} for c in split.categories],
        "annotations": _annotations(split),
    }


def _annotations(split: Split) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for picture in split.pictures:
        rows = zip(picture.boxes, picture.areas, picture.labels, picture.crowd, strict=True)
        for box, area, label, crowd in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools takes id 0 for "unmatched"
                    "image_id": picture.id,
                    "category_id": split.categories[label - 1].id,
                    "bbox": box.tolist(),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return annotations


def measure(
    detector: Detect, split: Split, size: int, detections: int = DEFAULT_DETECTIONS
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Final figures of an export of any format, and its detections in COCO's result format.

    Args:
        detector: Is run in fp32, one picture at a time.
        split: Where it is measured.
        size: Side of the canvas in pixels.
        detections: The most that it gives for a picture.
    """
    results = detect_singly(detector, split, size)
    return score_finally(split, results, detections), results


def score(
    truth: GroundTruth, results: list[dict[str, Any]], detections: int = DEFAULT_DETECTIONS
) -> Metrics:
    """The COCO figures of detections in COCO's result format, by hotcoco.

    A picture has at most `detections` of them.
    """
    return _metrics(match(truth, results, detections), truth.split, detections)


def match(
    truth: GroundTruth, results: list[dict[str, Any]], detections: int = DEFAULT_DETECTIONS
) -> Any:
    """Hotcoco's `COCOeval` of detections, accumulated; the last limit counts all of them."""
    run = hotcoco.COCOeval(truth.coco, truth.coco.load_res(results), "bbox")
    return _evaluate(run, detections)


def score_finally(
    split: Split, results: list[dict[str, Any]], detections: int = DEFAULT_DETECTIONS
) -> Metrics:
    """The COCO figures of detections by pycocotools, with whose figures others compare."""
    coco = COCO()
    coco.dataset = as_coco(split)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints unasked
        coco.createIndex()
        # its loadRes fails on an empty list
        loaded = coco.loadRes([dict(result) for result in results]) if results else COCO()
    return _metrics(_evaluate(COCOeval(coco, loaded, "bbox"), detections), split, detections)


def _evaluate(run: Any, detections: int) -> Any:
    """Evaluate and accumulate a `COCOeval` of either library; both have the same interface."""
    params = run.params
    params.maxDets = [*LIMITS, detections] if detections > DEFAULT_DETECTIONS else LIMITS
    run.params = params
    with contextlib.redirect_stdout(io.StringIO()):
        run.evaluate()
        run.accumulate()
    return run


def _metrics(run: Any, split: Split, detections: int) -> Metrics:
    # precision: IoU thresholds x recalls x classes x areas (all first) x LIMITS
    precision = run.eval["precision"][:, :, :, 0, LIMITS.index(DEFAULT_DETECTIONS)]
    per_class = {
        category.name: _or_none(_mean(precision[:, :, k]))
        for k, category in enumerate(split.categories)
    }
    figures = _figures(run, LIMITS.index(DEFAULT_DETECTIONS))
    return Metrics(figures, per_class, detections, _at_detections(_figures(run, -1), detections))


def _at_detections(figures: dict[str, float | None], detections: int) -> dict[str, float | None]:
    """The figures that depend on the limit of detections; empty if COCO counts all of them."""
    if detections <= DEFAULT_DETECTIONS:
        return {}
    fixed = {f"mar_{limit}" for limit in LIMITS}
    most = {f"mar_{detections}": figures[f"mar_{DEFAULT_DETECTIONS}"]}
    return {name: value for name, value in figures.items() if name not in fixed} | most


def _figures(run: Any, most: int) -> dict[str, float | None]:
    """The 12 figures as COCO summarizes them.

    `most` is the index of the limit for figures without a number of detections in their name. The
    summaries of the libraries know only three limits.
    """
    precision, recall = run.eval["precision"], run.eval["recall"]  # recall has no axis of recalls
    values = [
        precision[..., 0, most],
        precision[0, ..., 0, most],  # at an IoU of .50
        precision[5, ..., 0, most],  # of .75
        *(precision[..., area, most] for area in (1, 2, 3)),
        *(recall[..., 0, limit] for limit in (0, 1, most)),
        *(recall[..., area, most] for area in (1, 2, 3)),
    ]
    return {n: _or_none(_mean(value)) for n, value in zip(FIGURES, values, strict=True)}


def _mean(values: NDArray[np.float64]) -> float:
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else -1.0


def _or_none(value: float) -> float | None:
    return None if value < 0 else float(value)  # pycocotools gives -1 for "no such boxes"
