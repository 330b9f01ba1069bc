"""What a trial costs before its first step and after its last, and a worker before its first trial.

    python benchmarks/startup.py FOLDER [--runs 3] [--backbone NAME] [--image-size 320]

FOLDER holds train.json, val.json (COCO) and images/. Each run is a process of its own, as a worker
is: what it imports, then two trials one after another, as a worker runs them, of one head epoch and
one unfreeze epoch; the second forks its head phase from the first. Canvases are made before. Shown
is the median of the runs and their range; the last line is the figures as one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

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
    found = {}
    started = time.monotonic()
    import torch

    import search.running.trial  # noqa: F401  (what a worker imports)
    from trainer.config import TrainConfig
    from trainer.data.canvas import cache_folder
    from trainer.data.formats.layouts import find
    from trainer.data.loading import load
    from trainer.epoch_report import EpochReport
    from trainer.evaluation.review import review
    from trainer.training.fit import fit
    from trainer.training.phase_cache import PhaseCache

    found["imports"] = time.monotonic() - started
    torch.set_num_threads(1)
    started = time.monotonic()
    data = load(find(folder), cache_folder())
    found["data"] = time.monotonic() - started
    with tempfile.TemporaryDirectory() as place:
        cache = PhaseCache(Path(place) / "phases", cap=1e9)
        for trial, name in enumerate(("before", "before_forked")):
            config = TrainConfig.model_validate(
                {
                    "model": {"backbone": backbone, "weights": "none", "image_size": image_size},
                    "train": {
                        "trunk_cache": "off",
                        "head": {"epochs": 1},
                        "unfreeze": {"epochs": 1, "depth": 3, "lr": (1e-3, 2e-3)[trial]},
                    },
                }
            )
            steps: list[float] = []
            reports: list[EpochReport] = []
            own = Path(place) / str(trial)
            own.mkdir()

            def report(epoch: EpochReport, reports: list[EpochReport] = reports) -> bool:
                reports.append(epoch)
                return True

            def on_step(steps: list[float] = steps) -> None:
                steps.append(time.monotonic())

            started = time.monotonic()
            result = fit(config, data, own, report, cache, on_step=on_step)
            ended = time.monotonic()
            found[name] = steps[0] - started
            review(config, data.val, own, result.found, on_step)
            found["review"] = time.monotonic() - ended
        own_epochs = [epoch for epoch in reports if not epoch.forked]
        found["epoch"] = sum(epoch.seconds for epoch in own_epochs)
        found["between"] = ended - started - found["before_forked"] - found["epoch"]
    return {part: round(found[part], 3) for part in PARTS}


if __name__ == "__main__":
    main()
