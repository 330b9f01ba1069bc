"""What a person looks at to judge a finished trial: pictures, misses, precision against recall.

Made once, from what was detected at its best epoch; where that is not known any more, from its best
checkpoint by a pass over val.
"""

import io
import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..config import TrainConfig
from ..data.canvas import cache_folder, open_picture, open_store
from ..data.dataset import Picture, Split
from ..machine_errors import is_of_accelerator
from ..model.checkpoint import BEST, load, load_trained_state, write_whole
from ..model.detectors import build
from ..model.heads import DETECTIONS
from ..precision import device, resolve
from ..text.escaping import matplotlib, printable
from .coco_metrics import BATCH_SIZE, Truth, detect, match, unpack
from .predict import Box, draw

log = logging.getLogger(__name__)

REVIEW = "review"
"""Folder of all this within a trial's own."""
PREDICTIONS, MISSES, CURVES, CLASSES = (
    "predictions.jpg",
    "misses.jpg",
    "precision_recall.png",
    "classes.json",
)
THRESHOLD = 0.4
"""Score from which on a detection is drawn, and counts as right or wrong."""
PICTURES, WORST, ACROSS = 16, 8, 2
"""Pairs of pictures on either sheet, and in a row."""
TILE, GAP, TITLE = 320, 12, 26
"""Pixels: a picture's longer side, between pairs, and above them."""


def review(
    config: TrainConfig,
    val: Split,
    folder: Path,
    found: NDArray[np.void] | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> None:
    """Write `folder/review` from what was `found` at the best epoch (`Result.found`), else from
    `folder/best.pt`, and val: PREDICTIONS, truth and prediction side
    by side for the same pictures in every trial; MISSES, the pictures with the most wrong and
    missing boxes; CURVES, precision against recall a class; CLASSES, figures a class.

    Raises nothing but an accelerator's own error, after which its process is of no more use, for
    the trial has finished well: what fails is logged. Does nothing where it was begun before: what
    killed a worker once must not do so again. `on_step` is called before each batch.
    """
    try:
        (folder / REVIEW).mkdir()
        results = _detections(config, val, folder, on_step) if found is None else unpack(found)
        _review(val, results, folder / REVIEW, config.model.detections)
    except FileExistsError:
        return
    except Exception as error:
        if is_of_accelerator(error):
            raise
        log.warning("%s: its review could not be written", folder, exc_info=True)


def _review(split: Split, found: list[dict[str, Any]], place: Path, detections: int) -> None:
    truth = Truth(split)
    _write_classes(truth, found, place, detections)
    certain = [result for result in found if result["score"] >= THRESHOLD]
    boxes = _boxes(split, certain)
    every = max(1, len(split.pictures) // PICTURES)
    _write_sheet(split, split.pictures[::every][:PICTURES], boxes, {}, place / PREDICTIONS)
    wrong = mistakes(truth, certain, detections)
    worst = sorted(split.pictures, key=lambda p: -sum(wrong[p.id]))[:WORST]
    captions = {
        picture.id: f"{missed} missed, {false} wrong"
        for picture in worst
        for missed, false in [wrong[picture.id]]
        if missed or false
    }
    _write_sheet(split, [p for p in worst if p.id in captions], boxes, captions, place / MISSES)


def _detections(
    config: TrainConfig, split: Split, folder: Path, on_step: Callable[[], None]
) -> list[dict[str, Any]]:
    torch.manual_seed(config.train.seed)  # of a backbone without pretrained weights
    detector = build(config.model, len(split.categories))
    load_trained_state(detector, load(folder / BEST))
    where = device()
    return detect(
        detector.to(where),
        split,
        open_store(split, config.model.image_size, cache_folder() / "canvases"),
        precision=resolve(config.train.precision),
        batch_size=BATCH_SIZE[where.type],
        on_step=on_step,
    )


def mistakes(
    truth: Truth, certain: list[dict[str, Any]], detections: int = DETECTIONS
) -> dict[int, tuple[int, int]]:
    """Boxes missed and detections wrong, of which a picture has `detections` at most, by picture
    id, at IoU .50."""
    found = {picture.id: (0, 0) for picture in truth.split.pictures}
    # a class, a range of areas and a picture each
    for one in match(truth, certain, detections).evalImgs:
        if one is None or one["aRng"][0] > 0 or one["aRng"][1] < 1e9:
            continue
        missed, false = (
            int(((np.asarray(one[f"{of}Matches"])[0] == 0) & ~ignored.astype(bool)).sum())
            for of, ignored in (
                ("gt", np.asarray(one["gtIgnore"])),
                ("dt", np.asarray(one["dtIgnore"])[0]),
            )
        )
        before = found[one["image_id"]]
        found[one["image_id"]] = (before[0] + missed, before[1] + false)
    return found


def _boxes(split: Split, results: list[dict[str, Any]]) -> dict[int, list[Box]]:
    """Detections by picture id."""
    names = {category.id: category for category in split.categories}
    found: dict[int, list[Box]] = {}
    for result in results:
        box = Box(names[result["category_id"]], result["score"], tuple(result["bbox"]))
        found.setdefault(result["image_id"], []).append(box)
    return found


# -- figures a class ----------------------------------------------------------------------------


def _write_classes(
    truth: Truth, results: list[dict[str, Any]], place: Path, detections: int
) -> None:
    split = truth.split
    names = [category.name for category in split.categories]
    boxes = np.zeros(len(names), dtype=int)
    for picture in split.pictures:
        np.add.at(boxes, picture.labels[~picture.crowd] - 1, 1)
    # IoU thresholds x recalls x classes; -1 where a class has no boxes
    precision = match(truth, results, detections).eval["precision"][:, :, :, 0, -1]
    rows = [
        [name, int(count), _rounded(own), _rounded(own[0])]
        for name, count, own in zip(names, boxes, np.moveaxis(precision, 2, 0), strict=True)
    ]
    table = {"columns": ["class", "boxes in val", "AP", "AP50"], "data": rows}
    write_whole(json.dumps(table).encode(), place / CLASSES)
    write_whole(_draw_curves(names, precision[0]), place / CURVES)


def _rounded(precision: NDArray[np.float64]) -> float | None:
    return round(float(precision.mean()), 4) if (precision > -1).all() else None


def _draw_curves(names: list[str], precision: NDArray[np.float64]) -> bytes:
    """Precision (recalls x classes) against recall, as a PNG."""
    from matplotlib.figure import Figure  # half a second, which others need not spend

    figure = Figure(figsize=(7, 5), dpi=110, layout="constrained")
    axes = figure.add_subplot(
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1),
        ylim=(0, 1.02),
        title="IoU .50, val, during training",
    )
    for number, (name, own) in enumerate(zip(names, precision.T, strict=True)):
        if (own > -1).all():
            style = ("-", "--", ":")[number // 10 % 3]  # matplotlib has ten colours
            axes.plot(
                np.linspace(0, 1, len(own)),
                own,
                style,
                label=f"{matplotlib(name)} {own.mean():.2f}",
            )
    axes.grid(alpha=0.3)
    if len(names) <= 30:  # more are in the table
        axes.legend(loc="lower left", fontsize="small", ncols=1 + len(names) // 11, title="AP50")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


# -- sheets of pictures -------------------------------------------------------------------------


def _write_sheet(
    split: Split,
    pictures: tuple[Picture, ...] | list[Picture],
    boxes: dict[int, list[Box]],
    captions: dict[int, str],
    file: Path,
) -> None:
    """Truth at the left and prediction at the right, for each picture; none, no sheet."""
    if not pictures:
        return
    names = Counter(picture.file.name for picture in split.pictures)
    cells = [
        _pair(split, picture, boxes, captions.get(picture.id, ""), names[picture.file.name] > 1)
        for picture in pictures
    ]
    width = max(cell.width for cell in cells)
    rows = [cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)]
    heights = [max(cell.height for cell in row) for row in rows]
    across = min(ACROSS, len(cells))
    size = across * width + (across - 1) * GAP, sum(heights) + (len(rows) - 1) * GAP
    sheet = Image.new("RGB", size, "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * (width + GAP), top))
        top += height + GAP
    content = io.BytesIO()
    sheet.save(content, format="JPEG", quality=80)
    write_whole(content.getvalue(), file)


def _pair(
    split: Split,
    picture: Picture,
    boxes: dict[int, list[Box]],
    caption: str,
    in_folder: bool = False,
) -> Image.Image:
    opened = open_picture(picture.file, picture.sha256)
    scale = TILE / max(opened.size)
    size = max(1, round(opened.width * scale)), max(1, round(opened.height * scale))
    small = opened.resize(size, Image.Resampling.BILINEAR)
    truth = [
        Box(split.categories[label - 1], None, (box[0], box[1], box[2], box[3]))
        for box, label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True)
    ]
    pair = Image.new("RGB", (2 * small.width + 2, small.height + TITLE), "white")
    found = boxes.get(picture.id, [])
    for own, left in ((truth, 0), (found, small.width + 2)):
        drawn = draw(small, [_scaled(box, scale) for box in own], enlarge=False)
        pair.paste(drawn, (left, TITLE))
    pen, font = ImageDraw.Draw(pair), ImageFont.load_default(size=15)
    name = "/".join(picture.file.parts[-2:]) if in_folder else picture.file.name
    pen.text((2, 4), f"{printable(name)}: truth", fill="black", font=font)
    heading = f"found, score {THRESHOLD} or more" if not caption else f"found: {caption}"
    pen.text((small.width + 4, 4), heading, fill="black", font=font)
    return pair


def _scaled(box: Box, scale: float) -> Box:
    x, y, width, height = box.xywh
    return Box(box.category, box.score, (x * scale, y * scale, width * scale, height * scale))
