"""How a worker's memory grows: 30 trials, one after another, in one process.

    python benchmarks/memory.py [--trials 30] [--pictures 12] [--image-size 320]

Each trial runs as in a worker, in a new thread, on random pictures. Depth and batch size change
from trial to trial, and repeat after 18. The figures are the process's anonymous memory after each
trial, in two processes: one gives freed memory back to the system, the other leaves it to the
allocator. It fails if trials leave over a tenth more, on average, than the ones of the same
settings before. The last line is the figures as one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle, islice, product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

SETTINGS = tuple(product((0, 3, 5, 1, 4, 2), (4, 8, 16)))
"""Depth and batch size of each trial."""
MOST = 1.1
"""Memory after a trial, relative to the trial of the same settings before, on average."""


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--side", choices=["ours", "kept"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
            os.environ["XDG_CACHE_HOME"] = place
            print(json.dumps(measured(options, Path(place))))
        return
    figures = {}
    for side in ("ours", "kept"):
        line = [sys.executable, *sys.argv, "--side", side]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
        figures[side] = one = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{side}: {one['mb'][0]} MB after the first trial, {one['mb'][-1]} after the last, "
            f"at most {max(one['mb'])}; {one['times']:.2f} times as much as after the trial of "
            f"the same settings; {one['cpu']:.0f} s of CPU, {one['giving']:.1f} of "
            "them to give memory back"
        )
    print(json.dumps(figures))
    if figures["ours"]["times"] > MOST:
        raise SystemExit("a worker's memory grows")


def measured(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """One side, in this process."""
    import torch
    from ray import tune

    from search.running import trial
    from trainer.config import Data
    from trainer.data.loading import load

    torch.set_num_threads(1)
    vars(tune)["report"] = lambda _: None
    give, spent = vars(trial)["release_memory"], [0.0]

    def timed() -> None:
        if options.side == "ours":
            started = time.process_time()
            give()
            spent[0] += time.process_time() - started

    vars(trial)["release_memory"] = timed
    make_data(place / "data", options.pictures)
    files = Data(train=place / "data" / "train.json", val=place / "data" / "val.json")
    data = load(files, place)
    (place / "search").mkdir()
    megabytes: list[int] = []
    started = time.process_time()
    for number, (depth, batch_size) in enumerate(islice(cycle(SETTINGS), options.trials)):
        asked = {"number": number, "config": settings(depth, batch_size, options.image_size)}
        thread = threading.Thread(target=run_trial, args=(asked, data, place / "search"))
        thread.start()
        thread.join()
        megabytes.append(round(anonymous()))
        print(f"{options.side} {number}: {megabytes[-1]} MB", file=sys.stderr)
    repeated = zip(megabytes, megabytes[len(SETTINGS) :], strict=False)
    times = [after / before for before, after in repeated]
    return {
        "mb": megabytes,
        "times": mean(times) if times else 1.0,
        "cpu": time.process_time() - started,
        "giving": spent[0],
    }


def run_trial(asked: dict[str, Any], data: Any, folder: Path) -> None:
    """Run one trial as a worker of Tune does."""
    from search.running import trial

    ended = trial.run_trial(
        asked, data=data, folder=folder, threads=1, gpu_fraction=0, hang_timeout=600, disk_cap=1e9
    )
    if ended["end"] != "finished":
        print(ended, file=sys.stderr)
        os._exit(1)


def settings(depth: int, batch_size: int, image_size: int) -> dict[str, Any]:
    """A trial's configuration: an epoch of the head, which later trials fork, and one unfrozen."""
    unfreeze = {"epochs": 1, "depth": depth, "batch_size": batch_size, "open_epochs": 1}
    return {
        "model": {"backbone": "tf_efficientnet_lite0", "weights": "none", "image_size": image_size},
        "train": {
            "precision": "fp32",
            "trunk_cache": "off",
            "head": {"epochs": 1, "batch_size": 4},
            "unfreeze": unfreeze,
        },
    }


def anonymous() -> float:
    """Megabytes of this process, without mapped files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: line.split()[1] for line in lines[1:]}
    return int(sizes["Anonymous:"]) / 1e3


def make_data(folder: Path, count: int) -> None:
    """A COCO data set of rectangles on noise; val has half as many pictures."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for split, pictures in (("train", count), ("val", count // 2)):
        images: list[Any] = []
        boxes: list[Any] = []
        for i in range(pictures):
            pixels = draw.integers(0, 255, (240, 320, 3), dtype=np.uint8)
            for _ in range(3):
                w, h = (int(v) for v in draw.integers(30, 90, 2))
                x, y = int(draw.integers(0, 320 - w)), int(draw.integers(0, 240 - h))
                pixels[y : y + h, x : x + w] = (220, 30, 30)
                box = {"id": len(boxes) + 1, "image_id": i, "category_id": 1, "iscrowd": 0}
                boxes.append(box | {"bbox": [x, y, w, h], "area": w * h})
            name = f"{split}{i}.png"
            Image.fromarray(pixels).save(folder / name)
            images.append({"id": i, "file_name": name, "width": 320, "height": 240})
        categories = [{"id": 1, "name": "red"}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main()
