"""COCO evaluation of a detector on a split.

Each epoch is scored by hotcoco, which gives the bits of pycocotools in a hundredth of its time
(`benchmarks/evaluate.py`); final figures are scored by pycocotools itself.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import hotcoco
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from ..data.batches import Outputs
from ..data.canvas import letterbox, scales
from ..data.dataset import Picture, Split
from ..model.detectors import Detector
from ..model.heads import DETECTIONS, Detect
from ..precision import autocast

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
LIMITS = [1, 10, DETECTIONS]
"""How many detections of a class on a picture COCO counts."""
BATCH_SIZE = {"cpu": 2, "cuda": 8}
"""Pictures at once on val during a trial; an export is measured one by one. Few on a CPU, so that
the first feature maps stay in its cache: lite0 at 320 px took up to 1.7 times as long with 8."""


PACKED = np.dtype(
    [(name, np.int64) for name in ("image_id", "category_id")]
    + [(name, np.float64) for name in ("x", "y", "width", "height", "score")]
)


@dataclass(frozen=True)
class Metrics:
    """COCO figures of one evaluation; None where the split has nothing to measure."""

    figures: dict[str, float | None]
    """By name, see FIGURES."""
    per_class: dict[str, float | None]
    """AP (IoU .50 to .95) a class name."""
    detections: int = DETECTIONS
    """How many the detector finds on a picture at most."""
    at_detections: dict[str, float | None] = field(default_factory=dict)
    """The figures where all of these count, with `mar_300` for 300, if they are more than COCO
    counts; else empty."""

    def __getitem__(self, name: str) -> float:
        """A figure where all detections count."""
        return (self.figures | self.at_detections)[name] or 0.0


class Truth:
    """Ground truth of a split, indexed once."""

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
    found: list[dict[str, Any]] = []
    for picture in split.pictures:
        rows = zip(picture.boxes, picture.areas, picture.labels, picture.crowd, strict=True)
        for box, area, label, crowd in rows:
            found.append(
                {
                    "id": len(found) + 1,  # pycocotools takes id 0 for "unmatched"
                    "image_id": picture.id,
                    "category_id": split.categories[label - 1].id,
                    "bbox": box.tolist(),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return found


@torch.no_grad()
def detect(
    detector: Detector,
    split: Split,
    canvases: NDArray[np.uint8],
    *,
    precision: str = "fp32",
    batch_size: int = 1,
    outputs: Outputs | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Detections in COCO's result format: the data set's ids, original pixels, x, y, w, h.

    `outputs` are the frozen stages', where kept; `on_step` is called before each batch.
    """
    detector.eval()
    where = detector.mean.device
    results: list[dict[str, Any]] = []
    for start in range(0, len(split.pictures), batch_size):
        on_step()
        pictures = split.pictures[start : start + batch_size]
        batch = torch.from_numpy(np.array(canvases[start : start + batch_size])).permute(0, 3, 1, 2)
        places = range(start, start + len(pictures))
        frozen = outputs(places, [False] * len(places)).to(where) if outputs else None
        with autocast(where, precision):
            detections = detector(batch.to(where), frozen=frozen)
        for picture, own in zip(pictures, detections, strict=True):
            results += _in_coco(own, picture, split, canvases.shape[1])
    return results


@torch.no_grad()
def measure(
    found_in: Detect, split: Split, size: int, detections: int = DETECTIONS
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Final figures of what an export of any format detects, `detections` of a picture at most, and
    all that it detects: fp32, one picture at a time."""
    results: list[dict[str, Any]] = []
    for picture in split.pictures:
        pixels = torch.from_numpy(letterbox(picture, size))[None].permute(0, 3, 1, 2)
        (own,) = found_in(pixels)
        results += _in_coco(own, picture, split, size)
    return score_finally(split, results, detections), results


def _in_coco(
    found: dict[str, Tensor], picture: Picture, split: Split, size: int
) -> Iterator[dict[str, Any]]:
    """A picture's detections on its canvas in COCO's result format."""
    across, down = scales(picture.width, picture.height, size)
    corners = found["boxes"].cpu().numpy().astype(np.float64) / [across, down, across, down]
    for box, label, certainty in zip(
        to_xywh(corners, picture.width, picture.height).tolist(),
        found["labels"].tolist(),
        found["scores"].tolist(),
        strict=True,
    ):
        yield {
            "image_id": picture.id,
            "category_id": split.categories[label - 1].id,
            "bbox": box,
            "score": certainty,
        }


def to_xywh(corners: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """x1, y1, x2, y2 clipped to the picture, as x, y, width, height."""
    inside = corners.clip(0, [width, height, width, height])
    return np.concatenate([inside[:, :2], inside[:, 2:] - inside[:, :2]], axis=1)


def score(truth: Truth, results: list[dict[str, Any]], detections: int = DETECTIONS) -> Metrics:
    """The COCO figures of detections in COCO's result format, of which a picture has `detections`
    at most, by hotcoco."""
    return _metrics(match(truth, results, detections), truth.split, detections)


def match(truth: Truth, results: list[dict[str, Any]], detections: int = DETECTIONS) -> Any:
    """hotcoco's `COCOeval` of detections, accumulated; in the last column all of them count."""
    run = hotcoco.COCOeval(truth.coco, truth.coco.load_res(results), "bbox")
    return _evaluated(run, detections)


def score_finally(
    split: Split, results: list[dict[str, Any]], detections: int = DETECTIONS
) -> Metrics:
    """The same by pycocotools, whose figures are what others compare with."""
    coco = COCO()
    coco.dataset = as_coco(split)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints unasked
        coco.createIndex()
        # its loadRes fails on an empty list
        found = coco.loadRes([dict(result) for result in results]) if results else COCO()
    return _metrics(_evaluated(COCOeval(coco, found, "bbox"), detections), split, detections)


def pack(results: list[dict[str, Any]]) -> NDArray[np.void]:
    """Detections in COCO's result format as rows (n,) of PACKED, a tenth of their size."""
    rows = [(r["image_id"], r["category_id"], *r["bbox"], r["score"]) for r in results]
    return np.array(rows, dtype=PACKED)


def unpack(rows: NDArray[np.void]) -> list[dict[str, Any]]:
    """The inverse of `pack`."""
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, *box, score in rows.tolist()
    ]


def _evaluated(run: Any, detections: int) -> Any:
    """A `COCOeval` of either library, both of which have the same face."""
    params = run.params
    params.maxDets = [*LIMITS, detections] if detections > DETECTIONS else LIMITS
    run.params = params
    with contextlib.redirect_stdout(io.StringIO()):
        run.evaluate()
        run.accumulate()
    return run


def _metrics(run: Any, split: Split, detections: int) -> Metrics:
    # precision: IoU thresholds x recalls x classes x areas (all first) x LIMITS
    precision = run.eval["precision"][:, :, :, 0, LIMITS.index(DETECTIONS)]
    per_class = {
        category.name: _or_none(_mean(precision[:, :, k]))
        for k, category in enumerate(split.categories)
    }
    figures = _figures(run, LIMITS.index(DETECTIONS))
    return Metrics(figures, per_class, detections, _at_detections(_figures(run, -1), detections))


def _at_detections(figures: dict[str, float | None], detections: int) -> dict[str, float | None]:
    """What depends on the number of detections, under its name; empty where COCO counts all."""
    if detections <= DETECTIONS:
        return {}
    fixed = {f"mar_{limit}" for limit in LIMITS}
    most = {f"mar_{detections}": figures[f"mar_{DETECTIONS}"]}
    return {name: value for name, value in figures.items() if name not in fixed} | most


def _figures(run: Any, most: int) -> dict[str, float | None]:
    """The 12 figures as COCO summarizes them, those without a number of detections of the limit at
    this place: either library's own summary knows three limits alone."""
    precision, recall = run.eval["precision"], run.eval["recall"]  # recall: without recalls
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
