"""Unfreeze against the script that one would write instead: time, epochs and AP on one folder.

    python benchmarks/versus.py FOLDER [--runs 3] [--backbone B] [--weights W] [--trials 12]
        [--pictures N] [--seed S]

FOLDER holds train.json, val.json, test.json (COCO) and images/. Each run does both, one after the
other, with empty caches. Both have the same detector, trials, most epochs and ranges; see
`plain_search.py`. The runs have different seeds, from S on, for the search and its trials: the
epochs that ASHA saves are luck too. --pictures takes the first N of train and half as many of val
and test, to compare the time alone. The last line is the figures as one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--pictures", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        folder = options.folder.resolve()
        if options.pictures:
            folder = few(folder, options.pictures, Path(place))
        runs = []
        for seed in range(options.seed, options.seed + options.runs):
            runs.append(pair(str(folder), options, seed))
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


def few(folder: Path, count: int, place: Path) -> Path:
    """A data set of the first pictures of one."""
    for split, wanted in (("train", count), ("val", count // 2), ("test", count // 2)):
        content = json.loads((folder / f"{split}.json").read_text())
        content["images"] = content["images"][:wanted]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
        (place / f"{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            target = place / "images" / image["file_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "images" / image["file_name"], target)
    return place


def pair(folder: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The figures of both sides."""
    trials = ["--trials", str(options.trials)]
    settings = {
        "search.confirm": "off",
        "model.backbone": options.backbone,
        "model.weights": options.weights,
        "search.seed": seed,
        "train.seed": seed,
    }
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    model = ["--backbone", options.backbone, "--weights", options.weights, "--seed", str(seed)]
    return {
        "seed": seed,
        "unfreeze": timed(["whole_search.py", folder, *trials, *sets]),
        "plain": timed(["plain_search.py", folder, *trials, *model]),
    }


def timed(line: list[str]) -> dict[str, Any]:
    """The figures of a benchmark's last line, and the minutes of its process."""
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
    figures["minutes"] = round(minutes, 2)
    print(json.dumps({line[0]: figures}), flush=True)  # in case the other side fails
    return figures


if __name__ == "__main__":
    main()
