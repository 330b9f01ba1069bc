"""Draw what a search gave: its winner's boxes on three pictures, and all learning curves.

    python benchmarks/winner.py NAME

Run it where the search NAME was started: its folder is searches/NAME. The pictures are evenly
spaced over test, or over val without a test split; the boxes are those above the winner's
thresholds. Draws docs/winner.png; the last line is the val AP of winner and baseline as one JSON
object.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from search.ranking.contenders import BASELINE
from search.ranking.ranking import rank, winner
from search.ranking.row import Row
from search.reporting.chart_style import BASELINE_COLOUR, OTHER_COLOUR, WINNER_COLOUR
from search.study.reading import load_study, read_search_config
from search.study.record import End
from trainer.data.canvas import cache_folder, open_picture
from trainer.data.loading import load
from trainer.evaluation.drawing import COLOURS, Box
from trainer.evaluation.predict import predict
from trainer.export.bundle import open_export

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = Path(__file__).parents[1] / "docs" / "winner.png"
STORAGE = Path("searches")
PICTURES = 3
STYLE: Any = {"font.size": 16, "axes.spines.top": False, "axes.spines.right": False}
"""A phone shows the picture at two fifths of its size."""


def main() -> None:
    """Draw the winner of the search that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="of a finished search in this folder")
    print(json.dumps(draw(parser.parse_args().name)))


def draw(name: str) -> dict[str, float]:
    """Draw boxes and curves of a search, and return the best val AP of winner and baseline."""
    config = read_search_config(name, STORAGE)
    rows = rank(config, load_study(config).records.values())
    best = winner(rows)
    if best is None:
        raise SystemExit(f"{name} has no winner")
    baseline = next(row for row in rows if row.record.origin == BASELINE)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 8), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, PICTURES, height_ratios=(3, 4))
        data = load(config.data, cache_folder())
        split = data.test or data.val
        every = len(split.pictures) // PICTURES
        detect, spec = open_export(config.folder / "winner")
        for column, picture in enumerate(split.pictures[every // 2 :: every][:PICTURES]):
            opened = open_picture(picture.file, picture.sha256)
            size = spec.config.model.image_size
            boxes = predict(detect, spec.categories, opened, size, spec.thresholds)
            _draw_boxes(figure.add_subplot(grid[0, column]), opened, boxes)
        _draw_curves(figure.add_subplot(grid[1, :]), rows, best, baseline)
        figure.savefig(FILE, dpi=100)
    with Image.open(FILE) as drawn:
        few = drawn.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT)
    few.save(FILE, optimize=True)
    return {"winner": round(best.map or 0.0, 4), "baseline": round(baseline.map or 0.0, 4)}


def _draw_boxes(panel: "Axes", picture: Image.Image, boxes: list[Box]) -> None:
    panel.imshow(picture)
    panel.set_axis_off()
    for box in reversed(boxes):  # the highest score on top
        left, top, width, height = box.xywh
        colour = COLOURS[box.category.id % len(COLOURS)]
        frame = Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=3)
        panel.add_patch(frame)
        label = {"facecolor": colour, "edgecolor": colour, "pad": 1.5}
        panel.text(left, top, box.category.name, color="white", va="bottom", bbox=label)


def _draw_curves(panel: "Axes", rows: list[Row], best: Row, baseline: Row) -> None:
    """Val AP after each epoch: the winner over the baseline over all others."""
    for row in rows:
        if row in (best, baseline) or not row.record.reports:
            continue
        pruned = row.record.end == End.PRUNED
        name = "stopped early" if pruned else "other trials"
        _draw_curve(panel, row, OTHER_COLOUR, name, ":" if pruned else "-")
    if baseline is not best:
        _draw_curve(panel, baseline, BASELINE_COLOUR, "baseline: the settings as written")
    _draw_curve(panel, best, WINNER_COLOUR, "winner")
    panel.set(xlabel="epoch", ylabel="AP on val")
    panel.grid(alpha=0.3)
    handles, names = panel.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    panel.legend(once.values(), once.keys(), loc="lower right", frameon=False)


def _draw_curve(panel: "Axes", row: Row, colour: str, name: str, line: str = "-") -> None:
    epochs = sorted(row.record.reports)
    maps = [row.record.reports[epoch].map for epoch in epochs]
    wide = 2 if colour == OTHER_COLOUR else 4
    panel.plot(epochs, maps, line, color=colour, linewidth=wide, marker="o", label=name)


if __name__ == "__main__":
    main()
