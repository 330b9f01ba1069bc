"""Figures of each class: a table of boxes and AP, and a chart of precision against recall."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..text.escaping import escape_matplotlib
from .coco_metrics import GroundTruth, match


def class_figures(
    truth: GroundTruth, results: list[dict[str, Any]], detections: int
) -> tuple[dict[str, Any], bytes]:
    """The table, as columns and data, and the chart as a PNG."""
    split = truth.split
    names = [category.name for category in split.categories]
    boxes = np.zeros(len(names), dtype=int)
    for picture in split.pictures:
        np.add.at(boxes, picture.labels[~picture.crowd] - 1, 1)
    # IoU thresholds x recalls x classes; -1 for a class without boxes
    precision = match(truth, results, detections).eval["precision"][:, :, :, 0, -1]
    rows = [
        [name, int(count), _rounded(of_class), _rounded(of_class[0])]
        for name, count, of_class in zip(names, boxes, np.moveaxis(precision, 2, 0), strict=True)
    ]
    table = {"columns": ["class", "boxes in val", "AP", "AP50"], "data": rows}
    return table, _draw_curves(names, precision[0])


def _rounded(precision: NDArray[np.float64]) -> float | None:
    return round(float(precision.mean()), 4) if (precision > -1).all() else None


def _draw_curves(names: list[str], precision: NDArray[np.float64]) -> bytes:
    """Precision (recalls x classes) against recall, as a PNG."""
    from matplotlib.figure import Figure  # takes half a second, and few commands draw

    figure = Figure(figsize=(7, 5), dpi=110, layout="constrained")
    axes = figure.add_subplot(
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1),
        ylim=(0, 1.02),
        title="IoU .50, val, during training",
    )
    for number, (name, curve) in enumerate(zip(names, precision.T, strict=True)):
        if (curve > -1).all():
            style = ("-", "--", ":")[number // 10 % 3]  # matplotlib has ten colours
            label = f"{escape_matplotlib(name)} {curve.mean():.2f}"
            axes.plot(np.linspace(0, 1, len(curve)), curve, style, label=label)
    axes.grid(alpha=0.3)
    if len(names) <= 30:  # more are in the table
        axes.legend(loc="lower left", fontsize="small", ncols=1 + len(names) // 11, title="AP50")
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
