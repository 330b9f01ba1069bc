"""A search on a folder of pictures, as a user would run it: time, epochs, memory, figures.

The minutes of trials are given by what they were spent on: training at each depth, and evaluation.
The rest of the time goes to starts, checkpoints, exports, and waiting for the last trial.

    python benchmarks/whole_search.py FOLDER [--trials 12] [--set a.b=c ...]

FOLDER holds train.json, val.json and test.json (COCO) and images/. The last line is the figures as
one JSON object. Without FOLDER: the embedded default.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import psutil

from search.exports.model_data import load_data
from search.ranking.costs import costs
from search.study.reading import read_search_config
from search.study.storage import read_study
from trainer.epoch_report import EpochReport


def main() -> None:
    """Run the search, and print the figures as JSON."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="unfreeze-benchmark-") as place:
        figures = run(options.folder, options.trials, options.set, Path(place))
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--set", action="append", default=[])
    return parser.parse_args()


def run(folder: Path | None, trials: int | None, sets: list[str], place: Path) -> dict[str, object]:
    """Write a search.yaml for the folder, run it, and read the winner's figures."""
    unfreeze = [sys.executable, "-P", "-m", "search.commands.cli"]
    line = [*unfreeze, "search"]
    if folder is not None:
        subprocess.run([*unfreeze, "init", str(folder.resolve())], cwd=place, check=True)
        line.append("search.yaml")
    if trials is not None:
        line += ["--trials", str(trials)]
    for setting in sets:
        line += ["--set", setting]
    started = time.monotonic()
    process = subprocess.Popen(line, cwd=place)
    peak = _watch_memory(process)
    if process.wait():
        sys.exit(process.returncode)
    seconds = time.monotonic() - started
    searched = next((place / "searches").glob("*/winner")).parent
    metrics = json.loads((searched / "winner" / "metrics.json").read_text())
    config = read_search_config(searched.name, place / "searches")
    study = read_study(searched, searched.name)
    spent = costs(config, study)
    reports = [r for record in study.records.values() for r in record.reports.values()]
    pictures = len(load_data(searched / "search.yaml").train.pictures)
    return {
        "minutes": round(seconds / 60, 2),
        "trials": spent.trials,
        "epochs": {
            "trained": spent.epochs_run,
            "forked": spent.epochs_forked,
            "stopped": spent.epochs_not_run,
        },
        "parts": _parts((report for report in reports if not report.forked), pictures),
        "peak_pss_gib": round(peak[0] / 2**30, 2),
        **{
            f"{split}_{name}": round(metrics[split]["figures"][name], 4)
            for split in ("val", "test")
            if split in metrics
            for name in ("map", "map_50", "map_75")
        },
    }


def _parts(trained: Iterable[EpochReport], pictures: int) -> dict[str, dict[str, float]]:
    """Epochs and minutes, added up over trials, by what they were spent on."""
    epochs: defaultdict[str, int] = defaultdict(int)
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in trained:
        training = pictures / report.images_per_second
        depth = f"depth {report.depth}" if report.unfreeze_epoch else "head phase"
        for part, taken in ((depth, training), ("evaluation", report.seconds - training)):
            epochs[part] += 1
            seconds[part] += taken
    return {
        part: {"epochs": epochs[part], "minutes": round(seconds[part] / 60, 2)}
        for part in sorted(epochs)
    }


def _watch_memory(process: subprocess.Popen[bytes]) -> list[int]:
    """The largest proportional set size of the process tree, in bytes: a list of one, kept up."""
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            total = 0
            for member in _tree(process.pid):
                try:
                    total += member.memory_full_info().pss
                except psutil.Error:  # it ended meanwhile
                    continue
            peak[0] = max(peak[0], total)
            time.sleep(5)  # seldom: the kernel walks all pages, and training waits

    threading.Thread(target=watch, daemon=True).start()
    return peak


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
