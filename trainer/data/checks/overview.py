"""A data set in one picture: classes, box sizes against anchors, objects a picture, samples, and
pictures with something wrong."""

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
from ...model.checkpoint import write_whole
from ...model.detectors import build
from ...text.escaping import matplotlib, printable
from ..canvas import letterbox, scales
from ..dataset import Category, Picture, Split

OVERVIEW = "data.png"
WIDTH, DPI = 1600, 100
"""Of the picture, in pixels, and its pixels an inch."""
CLASSES = 20
"""The most frequent classes, which are shown; the rest is counted."""
ACROSS, DOWN = 5, 2
"""Samples, and as many at most of pictures with something wrong."""
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
TEXT, GRID = "#333333", "#dddddd"


def draw_overview(
    splits: list[Split], model: Model, file: Path, wrong: Sequence[tuple[str, Picture]] = ()
) -> None:
    """Write the picture of a data set, its boxes measured on the canvas of `model`.

    `wrong` are pictures with what is wrong with them, of which the first are drawn with that text.
    """
    parts = [_charts(splits, model), _sheet([("", p) for p in _chosen(splits[0])], splits[0])]
    if wrong:
        parts.append(_sheet(wrong[: ACROSS * DOWN], splits[0]))
    whole = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    stream = io.BytesIO()
    whole.save(stream, "PNG")
    write_whole(stream.getvalue(), file)


def anchor_sides(model: Model) -> list[float]:
    """Sides of the anchors of a detector, in canvas pixels, of squares of the same area; empty for
    one without anchors."""
    with torch.device("meta"):
        detector = build(model.model_copy(update={"weights": "none"}), 1)
    found = [module for module in detector.modules() if isinstance(module, AnchorGenerator)]
    return sorted({float(side) for each in found for level in each.sizes for side in level})


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
    for i, (split, own) in enumerate(zip(splits, counts, strict=True)):
        places = np.arange(len(shown)) + i * height
        axes.barh(places, [own[label] for label in shown], height, label=split.name)
    names = [matplotlib(categories[label - 1].name[:24]) for label in shown]
    axes.set_yticks(np.arange(len(shown)) + 0.4 - height / 2, names)
    axes.invert_yaxis()
    more = len(order) - len(shown)
    axes.set_title("boxes a class" + (f" (and {more} classes more)" if more else ""), color=TEXT)
    axes.legend(frameon=False)


def objects_a_class(split: Split) -> Counter[int]:
    """Boxes of each label, without crowds and what is to be ignored."""
    return Counter(np.concatenate([p.labels[~p.crowd] for p in split.pictures]).tolist())


def _draw_sizes(axes: Axes, splits: list[Split], model: Model) -> None:
    size = model.image_size
    sides = [np.concatenate([_sides(p, size) for p in split.pictures]) for split in splits]
    anchors = anchor_sides(model)
    every = np.concatenate([*sides, anchors])
    every = every[every > 0]
    if not every.size:
        return
    bins = np.geomspace(every.min(), every.max() * 1.01, 40)
    weights = [np.full(len(own), 1 / max(1, len(own))) for own in sides]
    names = [split.name for split in splits]
    axes.hist(sides, bins.tolist(), weights=weights, histtype="step", label=names, linewidth=1.5)
    for i, side in enumerate(anchors):
        axes.axvline(side, color="#888888", linewidth=0.8, label=None if i else "anchors")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(f"box sides on a canvas of {size} px, as shares", color=TEXT)
    axes.legend(frameon=False)


def _sides(picture: Picture, size: int) -> NDArray[np.float64]:
    """Of squares of the boxes' areas, in canvas pixels."""
    across, down = scales(picture.width, picture.height, size)
    area = picture.boxes[:, 2] * picture.boxes[:, 3] * across * down
    found: NDArray[np.float64] = np.sqrt(area.clip(0))
    return found


def _draw_objects(axes: Axes, splits: list[Split]) -> None:
    counts = [[len(picture.boxes) for picture in split.pictures] for split in splits]
    top = max(max(own) for own in counts)
    bins = np.linspace(-0.5, top + 0.5, min(top + 2, 40))
    weights = [[1 / len(own)] * len(own) for own in counts]
    names = [split.name for split in splits]
    axes.hist(counts, bins.tolist(), weights=weights, histtype="step", label=names, linewidth=1.5)
    axes.set_title("boxes a picture, as shares", color=TEXT)


def _sheet(pictures: Sequence[tuple[str, Picture]], split: Split) -> Image.Image:
    side = WIDTH // ACROSS
    sheet = Image.new("RGB", (WIDTH, side * -(-len(pictures) // ACROSS)), "white")
    for i, (text, picture) in enumerate(pictures):
        drawn = _sample(picture, split.categories, side, text)
        sheet.paste(drawn, (side * (i % ACROSS), side * (i // ACROSS)))
    return sheet


def _chosen(split: Split) -> list[Picture]:
    """Pictures by content, the rarest class first, each class in turn."""
    count = ACROSS * DOWN
    by_content = sorted(split.pictures, key=lambda picture: picture.sha256)
    total = Counter(np.concatenate([p.labels for p in split.pictures]).tolist())
    queues = [
        [p for p in by_content if label in p.labels]
        for label in sorted(total, key=lambda k: total[k])
    ]
    found: list[Picture] = []
    for queue in [*queues * count, by_content]:
        for picture in queue:
            if len(found) < count and all(picture is not one for one in found):
                found.append(picture)
                if queue is not by_content:
                    break
    return found


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
