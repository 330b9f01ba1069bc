"""A data set in one picture: charts of classes and boxes, samples, and pictures with findings."""

import io
from collections import Counter
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchvision.models.detection.anchor_utils import AnchorGenerator

from ...config import Model
from ...model.checkpoint import write_atomically
from ...model.detectors import build
from ...text.escaping import escape_matplotlib, printable
from ..canvas import letterbox, scales
from ..dataset import Category, Picture, Split

OVERVIEW = "data.png"
WIDTH, DPI = 1600, 100
"""Width of the picture in pixels, and its pixels per inch."""
CLASSES = 20
"""The number of classes in the chart, the most frequent first; the rest are counted."""
ACROSS, DOWN = 5, 2
"""Columns and rows of samples, and at most as many of pictures with findings."""
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
TEXT, GRID = "#333333", "#dddddd"


def draw_overview(
    splits: list[Split], model: Model, file: Path, wrong: Sequence[tuple[str, Picture]] = ()
) -> None:
    """Write the picture of a data set.

    Args:
        splits: Its splits; samples are of the first.
        model: Has the canvas on which boxes are measured, and the anchors.
        file: Where the PNG is written.
        wrong: Pictures with findings and the text for each; the first are drawn.
    """
    parts = [_charts(splits, model), _sheet([("", p) for p in _chosen(splits[0])], splits[0])]
    if wrong:
        parts.append(_sheet(wrong[: ACROSS * DOWN], splits[0]))
    drawn = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        drawn.paste(part, (0, top))
        top += part.height
    stream = io.BytesIO()
    drawn.save(stream, "PNG")
    write_atomically(stream.getvalue(), file)


def anchor_sides(model: Model) -> list[float]:
    """The sides of a detector's anchors in canvas pixels; empty if it has no anchors."""
    with torch.device("meta"):
        detector = build(model.model_copy(update={"weights": "none"}), 1)
    generators = [module for module in detector.modules() if isinstance(module, AnchorGenerator)]
    return sorted({float(side) for each in generators for level in each.sizes for side in level})


def _charts(splits: list[Split], model: Model) -> Image.Image:
    figure = Figure(figsize=(WIDTH / DPI, 4.6), dpi=DPI, layout="constrained")
    classes, sizes, objects = figure.subplots(1, 3)
    _draw_classes(classes, splits)
    _draw_sizes(sizes, splits, model)
    _draw_objects(objects, splits)
    for axes in (classes, sizes, objects):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=TEXT, labelsize=9)
        axes.grid(axis="x" if axes is classes else "y", color=GRID)
        axes.set_axisbelow(True)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return Image.open(stream).convert("RGB")


def _draw_classes(axes: Axes, splits: list[Split]) -> None:
    counts = [objects_a_class(split) for split in splits]
    categories = splits[0].categories
    order = sorted(range(1, len(categories) + 1), key=lambda label: -counts[0][label])
    shown = order[:CLASSES]
    height = 0.8 / len(splits)
    for i, (split, count) in enumerate(zip(splits, counts, strict=True)):
        places = np.arange(len(shown)) + i * height
        axes.barh(places, [count[label] for label in shown], height, label=split.name)
    names = [escape_matplotlib(categories[label - 1].name[:24]) for label in shown]
    axes.set_yticks(np.arange(len(shown)) + 0.4 - height / 2, names)
    axes.invert_yaxis()
    more = len(order) - len(shown)
    axes.set_title("boxes per class" + (f" ({more} more classes)" if more else ""), color=TEXT)
    axes.legend(frameon=False)


def objects_a_class(split: Split) -> Counter[int]:
    """The number of boxes of each label, without crowds and ignored boxes."""
    return Counter(np.concatenate([p.labels[~p.crowd] for p in split.pictures]).tolist())


def _draw_sizes(axes: Axes, splits: list[Split], model: Model) -> None:
    size = model.image_size
    sides = [np.concatenate([_sides(p, size) for p in split.pictures]) for split in splits]
    anchors = anchor_sides(model)
    shown = np.concatenate([*sides, anchors])
    shown = shown[shown > 0]
    if not shown.size:
        return
    bins = np.geomspace(shown.min(), shown.max() * 1.01, 40)
    weights = [np.full(len(each), 1 / max(1, len(each))) for each in sides]
    names = [split.name for split in splits]
    axes.hist(sides, bins.tolist(), weights=weights, histtype="step", label=names, linewidth=1.5)
    for i, side in enumerate(anchors):
        axes.axvline(side, color="#888888", linewidth=0.8, label=None if i else "anchors")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(f"box sides on a canvas of {size} px, as fractions", color=TEXT)
    axes.legend(frameon=False)


def _sides(picture: Picture, size: int) -> NDArray[np.float64]:
    """(n,) sides, in canvas pixels, of squares with the area of each box."""
    across, down = scales(picture.width, picture.height, size)
    area = picture.boxes[:, 2] * picture.boxes[:, 3] * across * down
    sides: NDArray[np.float64] = np.sqrt(area.clip(0))
    return sides


def _draw_objects(axes: Axes, splits: list[Split]) -> None:
    counts = [[len(picture.boxes) for picture in split.pictures] for split in splits]
    top = max(max(each) for each in counts)
    bins = np.linspace(-0.5, top + 0.5, min(top + 2, 40))
    weights = [[1 / len(each)] * len(each) for each in counts]
    names = [split.name for split in splits]
    axes.hist(counts, bins.tolist(), weights=weights, histtype="step", label=names, linewidth=1.5)
    axes.set_title("boxes per picture, as fractions", color=TEXT)


def _sheet(pictures: Sequence[tuple[str, Picture]], split: Split) -> Image.Image:
    side = WIDTH // ACROSS
    sheet = Image.new("RGB", (WIDTH, side * -(-len(pictures) // ACROSS)), "white")
    for i, (text, picture) in enumerate(pictures):
        drawn = _sample(picture, split.categories, side, text)
        sheet.paste(drawn, (side * (i % ACROSS), side * (i // ACROSS)))
    return sheet


def _chosen(split: Split) -> list[Picture]:
    """Samples: one picture of each class in turn, the rarest class first, ordered by content."""
    count = ACROSS * DOWN
    by_content = sorted(split.pictures, key=lambda picture: picture.sha256)
    total = Counter(np.concatenate([p.labels for p in split.pictures]).tolist())
    queues = [
        [p for p in by_content if label in p.labels]
        for label in sorted(total, key=lambda k: total[k])
    ]
    chosen: list[Picture] = []
    for queue in [*queues * count, by_content]:
        for picture in queue:
            if len(chosen) < count and all(picture is not one for one in chosen):
                chosen.append(picture)
                if queue is not by_content:
                    break
    return chosen


def _sample(
    picture: Picture, categories: tuple[Category, ...], side: int, text: str
) -> Image.Image:
    drawn = Image.fromarray(letterbox(picture, side))
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(size=12)
    across, down = scales(picture.width, picture.height, side)
    for (x, y, width, height), label in zip(picture.boxes, picture.labels, strict=True):
        colour = COLOURS[label % len(COLOURS)]
        left, top = x * across, y * down
        pen.rectangle((left, top, left + width * across, top + height * down), outline=colour)
        if sqrt(max(0.0, width * across * height * down)) > 24:  # else the name hides it
            pen.text((left + 2, top), printable(categories[label - 1].name)[:20], colour, font)
    if text:
        line = (0, side - 18, side, side)
        pen.rectangle(line, fill="white")
        pen.text((4, side - 17), f"{text}: {printable(picture.file.name)}"[:52], "#c00000", font)
    pen.rectangle((0, 0, side - 1, side - 1), outline="white", width=2)
    return drawn
