"""How deep should you unfreeze? AP against depth, on your own pictures, over several seeds.

    python benchmarks/depth.py FOLDER [FOLDER ...] --out depth [--seeds 3] [--epochs 4 12]

Each FOLDER holds train.json, val.json and, if there is one, test.json (COCO), and images/. Every
run has the same number of epochs: a head phase, then an unfreeze phase of one depth; beside them
one without pretrained weights. The epoch that was best on val is scored, on test where there is
one. Finished runs are kept in OUT/runs, and unfinished ones go on from their last epoch: the same
command continues after an interruption. Draws OUT/depth.png; the last line is the figures as one
JSON object.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
import torch

from trainer.config import TrainConfig
from trainer.data.canvas import cache_folder
from trainer.data.dataset import Splits
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load as load_data
from trainer.evaluation.coco_metrics import measure
from trainer.model.checkpoint import BEST, load, load_trained_state, write_atomically
from trainer.model.detectors import build
from trainer.model.outline import count_stages
from trainer.precision import default_device
from trainer.training.environment import environment
from trainer.training.fit import fit
from trainer.training.phase_cache import PhaseCache

matplotlib.use("Agg")
from matplotlib import pyplot

CURVES: dict[str, dict[str, Any]] = {
    "at once": {"schedule": "at_once"},
    "at once, half the lr each stage down": {"schedule": "at_once", "stage_lr_decay": 0.5},
    "gradual": {"schedule": "gradual"},
}
SCRATCH = "without pretrained weights"


@dataclass(frozen=True)
class Run:
    """One training, and its place in the figure."""

    curve: str
    depth: int
    seed: int
    config: TrainConfig


def main() -> None:
    """Train what is missing, draw, and print the figures as JSON."""
    options = _options()
    figures = {}
    for folder in options.folders:
        data = load_data(find_layout(folder), cache_folder())
        place = options.out / "runs" / folder.resolve().name
        planned = list(runs(options))
        points = []
        for i, run in enumerate(planned, start=1):
            figures_of_run = finished(run, data, place)
            point = {"curve": run.curve, "depth": run.depth, "seed": run.seed}
            points.append({**point, **figures_of_run})
            print(
                f"{folder.name} {i}/{len(planned)}: {run.curve}, depth {run.depth}, seed "
                f"{run.seed}: AP {figures_of_run['map']:.3f}",
                flush=True,
            )
        figures[folder.resolve().name] = summary(points)
    draw(figures, options.out / "depth.png")
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("depth"), metavar="OUT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, nargs=2, default=(4, 12), metavar=("HEAD", "UNFREEZE")
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=4)
    return parser.parse_args()


def runs(options: argparse.Namespace) -> Iterator[Run]:
    """All runs, seed by seed: after an interruption complete seeds can be drawn."""
    stages = count_stages(_config(options, {}).model)
    for seed in range(options.seeds):
        scratch = {
            "depth": "all",
            "schedule": "at_once",
            "batch_norm": "adapt",
            "backbone_lr_ratio": 1.0,
            "epochs": sum(options.epochs),
        }
        yield Run(SCRATCH, stages, seed, _config(options, scratch, seed, head=0, weights="none"))
        for depth in range(stages + 1):
            for curve, settings in CURVES.items():
                if depth < 2 and curve != next(iter(CURVES)):
                    continue  # with no or one open stage all curves are the same
                unfreeze = {"epochs": options.epochs[1], "depth": depth, **settings}
                yield Run(curve, depth, seed, _config(options, unfreeze, seed, options.epochs[0]))


def _config(
    options: argparse.Namespace,
    unfreeze: dict[str, Any],
    seed: int = 0,
    head: int = 0,
    weights: str = "imagenet",
) -> TrainConfig:
    batch = {"batch_size": options.batch_size}
    return TrainConfig.model_validate(
        {
            "model": {
                "backbone": options.backbone,
                "weights": weights,
                "image_size": options.image_size,
            },
            "train": {
                "seed": seed,
                "augment": "flip",
                "head": {"epochs": head, "lr": 2e-3, **batch},
                "unfreeze": {
                    "lr": 2e-3,
                    "backbone_lr_ratio": 0.3,
                    "open_epochs": min(3, options.epochs[1]),
                    **batch,
                }
                | unfreeze,
            },
        }
    )


def finished(run: Run, data: Splits, place: Path) -> dict[str, Any]:
    """The figures of a run: from its file, else from a training that starts or goes on now."""
    name = f"{run.curve} depth {run.depth} seed {run.seed}".replace(",", "").replace(" ", "-")
    file = place / f"{name}.json"
    identity = {
        "config": run.config.model_dump(mode="json"),
        "data": data.digest,
        "environment": environment(default_device()),
    }
    if file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text())
        if kept["of"] != identity:
            raise SystemExit(f"{file} is of other settings, pictures or code; choose another --out")
        return dict(kept["figures"])
    folder = place / name
    result = fit(run.config, data, folder, lambda _: True, PhaseCache(place / "phases", cap=1e9))
    torch.manual_seed(run.config.train.seed)  # for a backbone without pretrained weights
    detector = build(run.config.model, len(data.categories))
    load_trained_state(detector, load(folder / BEST))
    metrics, _ = measure(detector.eval().cpu(), data.test or data.val, run.config.model.image_size)
    figures = {
        "map": metrics.figures["map"] or 0.0,
        "val_map": result.best_map,
        "best_epoch": result.best_epoch,
    }
    write_atomically(json.dumps({"of": identity, "figures": figures}, indent=2).encode(), file)
    shutil.rmtree(folder)
    return figures


def summary(points: list[dict[str, Any]]) -> dict[str, Any]:
    """By curve and depth: mean AP over seeds, its standard deviation, and all values."""
    curves: dict[str, Any] = {}
    for curve in [SCRATCH, *CURVES]:
        # depths 0 and 1 are the same for all curves, and are drawn with each
        shared = [] if curve == SCRATCH else [p for p in points if p["depth"] < 2]
        others = [p for p in points if p["curve"] == curve and p not in shared]
        for depth in sorted({p["depth"] for p in shared + others}):
            values = [p["map"] for p in shared + others if p["depth"] == depth]
            curves.setdefault(curve, {})[depth] = {
                "mean": round(mean(values), 4),
                "sd": round(stdev(values), 4) if len(values) > 1 else 0.0,
                "runs": [round(value, 4) for value in values],
            }
    return curves


def draw(figures: dict[str, Any], file: Path) -> None:
    """AP against depth, a panel a data set; bars are one standard deviation over seeds.

    The panels stand below each other in large letters: a phone shows them as wide as its screen.
    """
    pyplot.rcParams["font.size"] = 16
    drawing, panels = pyplot.subplots(
        len(figures), 1, figsize=(9, 5 * len(figures) + 1.5), squeeze=False, layout="constrained"
    )
    for panel, (name, curves) in zip(panels[:, 0], figures.items(), strict=True):
        for shift, curve in enumerate(CURVES):
            depths = list(curves[curve])
            panel.errorbar(
                [depth + 0.08 * (shift - 1) for depth in depths],
                [curves[curve][depth]["mean"] for depth in depths],
                yerr=[curves[curve][depth]["sd"] for depth in depths],
                marker="o",
                linewidth=2.5,
                capsize=4,
                label=curve,
            )
        (scratch,) = curves[SCRATCH].values()
        panel.axhline(scratch["mean"], color="grey", linestyle="--", label=SCRATCH)
        panel.axhspan(
            scratch["mean"] - scratch["sd"],
            scratch["mean"] + scratch["sd"],
            color="grey",
            alpha=0.2,
        )
        panel.set(title=name, ylabel="AP")
        panel.grid(alpha=0.3)
    panels[-1][0].set_xlabel("depth: backbone stages that train")
    lines, names = panels[0][0].get_legend_handles_labels()
    drawing.legend(lines, names, loc="outside lower center", ncols=1, frameon=False)
    drawing.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
