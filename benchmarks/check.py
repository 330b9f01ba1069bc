"""What `unfreeze check` costs: against decoding every picture once, and on a large file.

    python benchmarks/check.py [DATA]

DATA (default: the embedded digits) is checked with an empty cache, and again. Before that each
picture is only decoded, once, on all cores, in the same process. The seconds of the command include
the start of Python and its imports. Then a COCO json of 100,000 pictures and 700,000 boxes with
polygons is checked, without its pictures. The last line is the figures as one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from trainer.data.canvas import cache_folder
from trainer.data.checks.examine import examine
from trainer.data.embedded_digits import make_digits
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load

PICTURES, BOXES = 100_000, 7
ROUNDS = 5


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA")
    place = parser.parse_args().data or make_digits(cache_folder())
    files = _files(place)
    decoding, cold, again, command = [], [], [], []
    for _ in range(ROUNDS):  # in turns: a shared machine may be slow for minutes
        with tempfile.TemporaryDirectory() as cache:
            decoding.append(_seconds(lambda: _decode(files)))
            cold.append(_examine(place, Path(cache)))
            again.append(_examine(place, Path(cache)))
        with tempfile.TemporaryDirectory() as cache:
            command.append(_check(place, cache)[0])
    with tempfile.TemporaryDirectory() as folder:
        large = _write_large(Path(folder))
        size = large.stat().st_size
        seconds, peak = _check(large, folder, "--no-pictures")
    ratios = [check / decode for check, decode in zip(cold, decoding, strict=True)]
    print(
        json.dumps(
            {
                "pictures": len(files),
                "decode_seconds": round(median(decoding), 2),
                "cold_seconds": round(median(cold), 2),
                "ratio": round(median(ratios), 2),
                "again_seconds": round(median(again), 2),
                "command_seconds": round(median(command), 2),
                "large_megabytes": round(size / 1e6),
                "large_seconds": round(seconds, 1),
                "large_peak_gib": round(peak / 2**30, 2),
            }
        )
    )


def _files(place: Path) -> list[Path]:
    splits = load(find_layout(place), cache_folder())
    every = [split for split in (splits.train, splits.val, splits.test) if split is not None]
    return [picture.file for split in every for picture in split.pictures]


def _decode(files: list[Path]) -> None:
    def decode(file: Path) -> None:
        with Image.open(file) as picture:
            picture.load()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, files))


def _examine(place: Path, cache: Path) -> float:
    return _seconds(lambda: examine(find_layout(place), cache))


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _check(place: Path, cache: str, *more: str) -> tuple[float, int]:
    """Seconds of the command, and its peak memory in bytes."""
    line = [sys.executable, "-P", "-m", "search.commands.cli", "check", str(place), *more]
    env = {**os.environ, "XDG_CACHE_HOME": cache, "PYTHONPATH": str(Path(__file__).parents[1])}
    started = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(line)} ended with {process.returncode}")
    return time.monotonic() - started, usage.ru_maxrss * 1024


def _write_large(folder: Path) -> Path:
    """A json as COCO's are: each box with a polygon and an area."""
    draw = np.random.default_rng(0)
    corners = draw.integers(0, 300, (PICTURES * BOXES, 2)).tolist()
    sizes = draw.uniform(20, 100, (PICTURES * BOXES, 2)).round(2).tolist()
    file = folder / "large.json"
    with file.open("w") as out:
        out.write('{"categories": ')
        json.dump([{"id": i, "name": f"class {i}"} for i in range(1, 81)], out)
        out.write(', "images": ')
        names = ((i, f"{i:012}.jpg") for i in range(PICTURES))
        json.dump([{"id": i, "file_name": n, "width": 640, "height": 480} for i, n in names], out)
        out.write(', "annotations": [')
        for i, ((x, y), (w, h)) in enumerate(zip(corners, sizes, strict=True)):
            annotation = {
                "id": i,
                "image_id": i // BOXES,
                "category_id": 1 + i % 80,
                "bbox": [x, y, w, h],
                "area": round(w * h, 2),
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h] * 4],
            }
            out.write((", " if i else "") + json.dumps(annotation))
        out.write("]}")
    return file


if __name__ == "__main__":
    main()
