"""Unfreeze against the script that one would write instead, on one folder: time, epochs, AP.

    python benchmarks/versus.py FOLDER [--runs 3] [--backbone B] [--weights W] [--trials 12]

FOLDER holds train.json, val.json, test.json (COCO) and images/. Each run does both, one after the
other, from nothing: no canvases, no phases are there. The same detector, trials, epochs at most and
ranges; see `plain_search.py`. The last line is the figures as one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--trials", type=int, default=12)
    options = parser.parse_args()
    folder, trials = str(options.folder.resolve()), ["--trials", str(options.trials)]
    ours = [
        "whole_search.py",
        folder,
        *trials,
        *("--set", "search.confirm=off", "--set", f"model.backbone={options.backbone}"),
        *("--set", f"model.weights={options.weights}"),
    ]
    model = ["--backbone", options.backbone, "--weights", options.weights]
    theirs = ["plain_search.py", folder, *trials, *model]
    runs = []
    for _ in range(options.runs):
        runs.append({"unfreeze": timed(ours), "plain": timed(theirs)})
        print(json.dumps(runs[-1]), flush=True)
    ratios = sorted(run["plain"]["minutes"] / run["unfreeze"]["minutes"] for run in runs)
    print(
        json.dumps(
            {
                "runs": runs,
                "ratios": [round(ratio, 2) for ratio in ratios],
                "median_ratio": round(statistics.median(ratios), 2),
            }
        )
    )


def timed(line: list[str]) -> dict[str, Any]:
    """The figures of a benchmark's last line, and the minutes that it took as a whole."""
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        environment = {**os.environ, "XDG_CACHE_HOME": place, "PYTHONPATH": str(HERE.parent)}
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(HERE / line[0]), *line[1:]],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        minutes = (time.monotonic() - started) / 60
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures | {"minutes": round(minutes, 2)}


if __name__ == "__main__":
    main()
