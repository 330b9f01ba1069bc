"""What a person looks at to judge a finished trial: pictures, misses, precision against recall.

It is made once, from the detections of the best epoch. If those are not known any more, the best
checkpoint is run on val.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import TrainConfig
from ..data.canvas_store import canvases_folder, open_canvases
from ..data.dataset import Picture, Split
from ..machine_errors import is_accelerator_error
from ..model.checkpoint import BEST, load, load_trained_state, write_atomically
from ..model.detectors import build
from ..model.heads import DEFAULT_DETECTIONS
from ..precision import default_device, resolve_precision
from .class_figures import class_figures
from .coco_metrics import GroundTruth, match
from .detections import BATCH_SIZE, detect, unpack
from .drawing import Box
from .sheets import THRESHOLD, make_sheet

log = logging.getLogger(__name__)

REVIEW = "review"
"""The folder of the review in a trial's folder."""
PREDICTIONS, MISSES, CURVES, CLASSES = (
    "predictions.jpg",
    "misses.jpg",
    "precision_recall.png",
    "classes.json",
)
"""Its files: a sheet of the same pictures for every trial, a sheet of the pictures with the most
missing and wrong boxes, precision against recall by class, and figures by class."""
PICTURES, WORST = 16, 8
"""Number of pictures on PREDICTIONS, and at most on MISSES."""


def review(
    config: TrainConfig,
    val: Split,
    folder: Path,
    packed: NDArray[np.void] | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Write the review of a finished trial into `folder/review`.

    It does nothing if a review was begun before: what killed a worker once must not do so again.
    Errors are logged, as the trial itself has finished well. Only an error of the accelerator is
    raised, after which its process is of no more use.

    Args:
        config: The trial's.
        val: The split on which it was measured.
        folder: The trial's.
        packed: Detections at the best epoch (`Result.detections`); None to run `folder/best.pt`.
        on_step: Called before each batch.
    """
    try:
        (folder / REVIEW).mkdir()
        results = _detect(config, val, folder, on_step) if packed is None else unpack(packed)
        _review(val, results, folder / REVIEW, config.model.detections)
    except FileExistsError:
        return
    except Exception as error:
        if is_accelerator_error(error):
            raise
        log.warning("%s: its review could not be written", folder, exc_info=True)


def _review(split: Split, results: list[dict[str, Any]], place: Path, detections: int) -> None:
    truth = GroundTruth(split)
    table, curves = class_figures(truth, results, detections)
    write_atomically(json.dumps(table).encode(), place / CLASSES)
    write_atomically(curves, place / CURVES)
    certain = [result for result in results if result["score"] >= THRESHOLD]
    boxes = _boxes(split, certain)

    def write_sheet(pictures: Sequence[Picture], captions: dict[int, str], file: str) -> None:
        if pictures:
            write_atomically(make_sheet(split, pictures, boxes, captions), place / file)

    every = max(1, len(split.pictures) // PICTURES)
    write_sheet(split.pictures[::every][:PICTURES], {}, PREDICTIONS)
    wrong = mistakes(truth, certain, detections)
    worst = sorted(split.pictures, key=lambda p: -sum(wrong[p.id]))[:WORST]
    captions = {
        picture.id: f"{missed} missed, {false} wrong"
        for picture in worst
        for missed, false in [wrong[picture.id]]
        if missed or false
    }
    write_sheet([picture for picture in worst if picture.id in captions], captions, MISSES)


def _detect(
    config: TrainConfig, split: Split, folder: Path, on_step: Callable[[], None]
) -> list[dict[str, Any]]:
    torch.manual_seed(config.train.seed)  # for a backbone without pretrained weights
    detector = build(config.model, len(split.categories))
    load_trained_state(detector, load(folder / BEST))
    chosen = default_device()
    return detect(
        detector.to(chosen),
        split,
        open_canvases(split, config.model.image_size, canvases_folder()),
        precision=resolve_precision(config.train.precision),
        batch_size=BATCH_SIZE[chosen.type],
        on_step=on_step,
    )


def mistakes(
    truth: GroundTruth, certain: list[dict[str, Any]], detections: int = DEFAULT_DETECTIONS
) -> dict[int, tuple[int, int]]:
    """The number of missed boxes and of wrong detections by picture id, at IoU .50.

    A picture has at most `detections` of the certain detections.
    """
    counts = {picture.id: (0, 0) for picture in truth.split.pictures}
    # one item for each class, range of areas and picture
    for item in match(truth, certain, detections).evalImgs:
        if item is None or item["aRng"][0] > 0 or item["aRng"][1] < 1e9:
            continue
        missed, false = (
            int(((np.asarray(item[f"{of}Matches"])[0] == 0) & ~ignored.astype(bool)).sum())
            for of, ignored in (
                ("gt", np.asarray(item["gtIgnore"])),
                ("dt", np.asarray(item["dtIgnore"])[0]),
            )
        )
        before = counts[item["image_id"]]
        counts[item["image_id"]] = (before[0] + missed, before[1] + false)
    return counts


def _boxes(split: Split, results: list[dict[str, Any]]) -> dict[int, list[Box]]:
    """Detections by picture id."""
    categories = {category.id: category for category in split.categories}
    boxes: dict[int, list[Box]] = {}
    for result in results:
        box = Box(categories[result["category_id"]], result["score"], tuple(result["bbox"]))
        boxes.setdefault(result["image_id"], []).append(box)
    return boxes
