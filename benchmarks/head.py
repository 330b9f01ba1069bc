"""How wide the neck and how deep the head's branches: AP and cost of one plain trial each.

    python benchmarks/head.py FOLDER [--epochs 4 4]

FOLDER holds train.json and val.json (COCO) and images/. Trains a head phase and an unfreeze phase
(everything, at once) with each shape; the last line is the figures as one JSON object.
"""

import argparse
import json
import tempfile
from pathlib import Path

from trainer.config import Train, TrainConfig
from trainer.data.canvas import cache_folder
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load
from trainer.epoch_report import EpochReport
from trainer.model import detectors
from trainer.training.fit import fit

SHAPES = ((256, 4), (128, 4), (96, 2))
"""Channels and convolutions of a branch: torchvision's, half as wide, ours."""


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, nargs=2, default=(4, 4), metavar=("HEAD", "UNFREEZE"))
    options = parser.parse_args()
    data = load(find_layout(options.folder), cache_folder())
    head, unfreeze = options.epochs
    config = TrainConfig(
        train=Train.model_validate(
            {
                "head": {"epochs": head},
                "unfreeze": {"epochs": unfreeze, "depth": "all", "schedule": "at_once"},
            }
        )
    )
    figures = {}
    for channels, convs in SHAPES:
        detectors.CHANNELS, detectors.BRANCH_CONVS = channels, convs
        reports: list[EpochReport] = []

        def keep(report: EpochReport, reports: list[EpochReport] = reports) -> bool:
            reports.append(report)
            return True

        with tempfile.TemporaryDirectory() as folder:
            fit(config, data, Path(folder), keep)
        seconds = sum(report.seconds for report in reports)
        best = max(report.map for report in reports)
        print(f"{channels} channels, {convs} convolutions: AP {best:.3f} in {seconds:.0f} s")
        figures[f"{channels}x{convs}"] = {"map": round(best, 4), "seconds": round(seconds, 1)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
