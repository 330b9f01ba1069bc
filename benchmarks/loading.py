"""How fast pictures load: an epoch from the canvas store against torchvision's CocoDetection.

    python benchmarks/loading.py FOLDER [--size 320] [--batch 4] [--runs 3]

FOLDER holds train.json, val.json and images/. The other side decodes and letterboxes each picture
in each epoch, as a training script does. Both make batches of tensors, with flips, on one thread.
Then two processes read all of the store, as two trials on one machine do. The kernel says how much
memory the store takes (proportional set size) with one reader and with two. The last line is the
figures as one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from trainer.config import Data
from trainer.data.batches import batches
from trainer.data.canvas_store import open_canvases
from trainer.data.loading import load

READER = """
import sys, numpy as np
store = np.load(sys.argv[1], mmap_mode="r")
print(int(store.sum(dtype=np.int64)), flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        cache = Path(place)
        files = {name: options.folder / f"{name}.json" for name in ("train", "val")}
        data = load(Data(**files, images=options.folder / "images"), cache)
        train = data.train
        started = time.perf_counter()
        store = open_canvases(train, options.size, cache)
        made = time.perf_counter() - started
        decoding = decoded(options.folder, options.size, len(train.pictures))
        runs = []
        for epoch in range(options.runs):
            epoch_of_ours = batches(
                train, store, batch_size=options.batch, augment="flip", seed=0, epoch=epoch
            )
            runs.append((exhaust(epoch_of_ours), exhaust(decoding(options.batch))))
            print(f"store {runs[-1][0]:.3f} s, CocoDetection {runs[-1][1]:.3f} s")
        del store, epoch_of_ours  # else the kernel would count this process as a reader
        (file,) = cache.glob("*.npy")
        one, two = memory(file, 1), memory(file, 2)
    print(
        json.dumps(
            {
                "pictures": len(train.pictures),
                "seconds": [[round(value, 3) for value in pair] for pair in runs],
                "ratios": sorted(round(theirs / ours, 1) for ours, theirs in runs),
                "store_made_seconds": round(made, 2),
                "store_mib": round(one / 2**20, 1),
                "memory_of_a_second_trial": round(two / one - 1, 4),
            }
        )
    )


def exhaust(epoch: Iterator[Any]) -> float:
    """Seconds of an epoch."""
    started = time.perf_counter()
    for _ in epoch:
        pass
    return time.perf_counter() - started


def decoded(folder: Path, size: int, pictures: int) -> Any:
    """The usual loop: decode, letterbox, flip, collate."""
    change = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(size=None, max_size=size, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )
    dataset = CocoDetection(folder / "images", folder / "train.json", transforms=change)
    dataset = wrap_dataset_for_transforms_v2(dataset, target_keys=("boxes", "labels"))
    assert len(dataset) == pictures

    def epoch(batch_size: int) -> Iterator[Any]:
        order = np.random.default_rng(0).permutation(len(dataset))
        for start in range(0, len(order), batch_size):
            batch = [dataset[int(i)] for i in order[start : start + batch_size]]
            canvases = torch.full((len(batch), 3, size, size), 127, dtype=torch.uint8)
            for canvas, (picture, _) in zip(canvases, batch, strict=True):
                canvas[:, : picture.shape[1], : picture.shape[2]] = picture
            yield canvases, [target for _, target in batch]

    return epoch


def memory(file: Path, readers: int) -> float:
    """Bytes of the store in memory while this many processes have read all of it."""
    line = [sys.executable, "-c", READER, str(file)]
    running = [
        subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(readers)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        return sum(mapped(process.pid, file) for process in running)
    finally:
        for process in running:
            process.communicate()


def mapped(pid: int, file: Path) -> float:
    """Proportional set size of one file's mapping in a process."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            inside = line.endswith(str(file))
        elif inside and first == "Pss:":
            total += 1024 * int(line.split()[1])
    return float(total)


if __name__ == "__main__":
    main()
