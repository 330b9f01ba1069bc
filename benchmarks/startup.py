"""Seconds of a trial before its first step and after its last, and of a worker's imports.

    python benchmarks/startup.py FOLDER [--runs 3] [--backbone NAME] [--image-size 320]

FOLDER holds train.json, val.json (COCO) and images/. Each run is a new process, as a worker is. It
imports what a worker imports, then runs two trials, one after another, of one head epoch and one
unfreeze epoch. The second forks its head phase from the first. Canvases are made before. The median
of the runs and their range are printed; the last line is the figures as one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.data.dataset import Splits
    from trainer.training.phase_cache import PhaseCache

PARTS = {
    "imports": "imports of a worker",
    "data": "the data set, read",
    "before": "first trial, before its first step",
    "before_forked": "second trial, before its first step",
    "between": "second trial, checkpoints and reports",
    "review": "second trial, its pictures after the last epoch",
    "epoch": "for comparison: its unfreeze epoch, with its evaluation",
}


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.folder, options.backbone, options.image_size)))
        return
    runs = []
    for i in range(options.runs + 1):
        done = subprocess.run(
            [sys.executable, *sys.argv, "--one"], stdout=subprocess.PIPE, text=True, check=True
        )
        if i:  # the first one makes canvases and warms the disk's cache
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    figures = {part: [run[part] for run in runs] for part in PARTS}
    for part, seconds in figures.items():
        print(f"{median(seconds):6.2f} s ({min(seconds):.2f}-{max(seconds):.2f})  {PARTS[part]}")
    print(json.dumps(figures))


def measured(folder: Path, backbone: str, image_size: int) -> dict[str, float]:
    """Seconds of each part, in this process."""
    started = time.monotonic()
    import torch

    import search.running.trial  # noqa: F401  (what a worker imports)
    from trainer.config import TrainConfig
    from trainer.data.canvas import cache_folder
    from trainer.data.formats.layouts import find_layout
    from trainer.data.loading import load
    from trainer.training.phase_cache import PhaseCache

    seconds = {"imports": time.monotonic() - started}
    torch.set_num_threads(1)
    started = time.monotonic()
    data = load(find_layout(folder), cache_folder())
    seconds["data"] = time.monotonic() - started
    with tempfile.TemporaryDirectory() as place:
        cache = PhaseCache(Path(place) / "phases", cap=1e9)
        for lr, before in ((1e-3, "before"), (2e-3, "before_forked")):
            config = TrainConfig.model_validate(
                {
                    "model": {"backbone": backbone, "weights": "none", "image_size": image_size},
                    "train": {
                        "trunk_cache": "off",
                        "head": {"epochs": 1},
                        "unfreeze": {"epochs": 1, "depth": 3, "lr": lr},
                    },
                }
            )
            seconds[before], after = measured_trial(config, data, Path(place) / before, cache)
    seconds |= after  # of the second trial
    return {part: round(seconds[part], 3) for part in PARTS}


def measured_trial(
    config: "TrainConfig", data: "Splits", folder: Path, cache: "PhaseCache"
) -> tuple[float, dict[str, float]]:
    """Seconds of a trial before its first step, and of its other parts."""
    from trainer.epoch_report import EpochReport
    from trainer.evaluation.review import review
    from trainer.training.fit import fit

    steps: list[float] = []
    reports: list[EpochReport] = []

    def report(epoch: EpochReport) -> bool:
        reports.append(epoch)
        return True

    def on_step() -> None:
        steps.append(time.monotonic())

    folder.mkdir()
    started = time.monotonic()
    result = fit(config, data, folder, report, cache, on_step=on_step)
    ended = time.monotonic()
    before = steps[0] - started
    review(config, data.val, folder, result.detections, on_step)
    epochs = sum(epoch.seconds for epoch in reports if not epoch.forked)
    return before, {
        "review": time.monotonic() - ended,
        "epoch": epochs,
        "between": ended - started - before - epochs,
    }


if __name__ == "__main__":
    main()
