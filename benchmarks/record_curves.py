"""Learning curves of many configurations, trained to the end: what stopping rules are judged on.

    python benchmarks/record_curves.py [NAME=]DATA[:N] ... [--configurations 48] [--seeds 2]
        [--val 50] [--processes 2] [--out benchmarks/curves] [--work FOLDER]

DATA is a data set as `unfreeze init` takes it, and `digits` the embedded one. N keeps the first N
pictures of train, in the order of its files, and --val as many of val. Configurations are drawn at
random, each for itself, from the search.yaml that `init` writes; number 0 is the configuration as
written. Digits have the canvas and the augmentation of the embedded search. Each configuration is
trained with each seed for all of its epochs, on one thread, from a head phase that a seed's trials
share. So that unfinished curves are of use, sets take turns, and seed 0 comes first.

OUT/NAME.jsonl gets a line for the set, then one a trial; lists have an entry for each epoch:

- `averaged`, `raw`: val AP with averaged weights (`train.ema`, 0.99) and without, in one training.
  The head phase has no average.
- `training_seconds`, `scoring_seconds`: by the clock. The machine may have had other work.
- `cpu_seconds`: of the process, with checkpoints and without the scoring of `raw`; what an epoch
  takes on a free core. null where another trial, or a process that was stopped, ran the epoch.

Trials in OUT are not trained again, and unfinished ones go on from their last epoch. So the same
command continues at any time, with any number of processes. The last line is the figures as one
JSON object.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock, Timeout

from search.commands.init import write_search
from search.running.resolve_auto import resolve_auto
from search.space.config_file import DEFAULT_FILE, read_config, read_yaml
from search.space.sampling import base_parameters, suggest
from search.space.space import Values, read_space, values_by_field, with_values
from search.space.validation import checked_config
from trainer.config import TrainConfig
from trainer.data.canvas import cache_folder
from trainer.data.dataset import Splits
from trainer.data.embedded_digits import make_digits
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load
from trainer.epoch_report import EpochReport
from trainer.evaluation.coco_metrics import score
from trainer.evaluation.detections import BATCH_SIZE, detect
from trainer.machine_errors import OutOfMemoryError
from trainer.model.checkpoint import load_last, write_atomically
from trainer.model.detectors import build
from trainer.phases import plan
from trainer.precision import default_device
from trainer.training.engine import DivergedError
from trainer.training.environment import environment
from trainer.training.fit import fit
from trainer.training.phase_cache import PhaseCache
from trainer.training.trial_data import TrialData

DIGITS = Path("digits")
"""As DATA: the embedded data set."""
EMA = 0.99
PHASES_CAP = 1e9
"""Bytes of shared phases; only head phases are ever used again, and stay."""
ENDS = {DivergedError: "diverged", OutOfMemoryError: "out of memory"}


@dataclass(frozen=True)
class RecordedSet:
    """A data set, its search space, and the file of its curves."""

    name: str
    data: Splits
    config: TrainConfig
    """The configuration as written, with each `auto` resolved."""
    space: dict[str, Any]
    """As in a search.yaml."""
    file: Path
    work: Path
    """Folder of unfinished trials."""

    def trials(self) -> list[dict[str, Any]]:
        """The recorded trials."""
        return [json.loads(line) for line in self.file.read_text().splitlines()[1:]]

    def values(self, count: int) -> list[Values]:
        """The configuration as written and so many random ones, by dotted field."""
        space = read_space(self.space)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        drawn = [suggest(space, self.config, study.ask()) for _ in range(count)]
        return [values_by_field(base_parameters(space, self.config)), *drawn]


def main() -> None:
    """Record what is missing, and print how much there is as JSON."""
    options = _options()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    started = time.monotonic()
    sets = [open_set(text, options) for text in options.sets]
    if options.processes == 1:
        record(sets, options)
    else:
        _run_processes(options.processes)
    recorded = {each.name: len(each.trials()) for each in sets}
    minutes = round((time.monotonic() - started) / 60, 1)
    print(json.dumps({"recorded": recorded, "of": _count(options), "minutes": minutes}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", metavar="[NAME=]DATA[:N]")
    parser.add_argument("--configurations", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--val", type=int, default=50, metavar="N")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/curves"))
    parser.add_argument("--work", type=Path, default=cache_folder() / "recording")
    return parser.parse_args()


def _count(options: argparse.Namespace) -> int:
    """Trials of a set."""
    return int((1 + options.configurations) * options.seeds)


def _run_processes(count: int) -> None:
    """Run this command in several processes, and end them with this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    line = [sys.executable, *sys.argv, "--processes", "1"]
    running = [subprocess.Popen(line, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        if any([process.wait() for process in running]):
            sys.exit(1)
    finally:
        for process in running:
            process.terminate()


def open_set(text: str, options: argparse.Namespace) -> RecordedSet:
    """A set of the command line; begins its file if there is none."""
    named, equals, rest = text.partition("=")
    place, colon, count = (rest if equals else text).rpartition(":")
    folder = Path(place if colon else count)
    name = named if equals else folder.resolve().name
    source = make_digits(cache_folder()) if folder == DIGITS else folder
    data = load(find_layout(source), cache_folder())
    data = first_pictures(data, int(count) if colon else None, options.val)
    here = {"data": data.digest, "ema": EMA, "environment": environment(default_device())}
    file, work = options.out / f"{name}.jsonl", options.work / name
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{work}.lock"):
        if not file.exists():
            config, space = written_by_init(source, work / "search.yaml", data)
            head = {"set": name, "pictures": _counts(data), **here, "space": space}
            _write_lines(file, [head | {"config": config.model_dump(mode="json")}])
        head = json.loads(file.read_text().splitlines()[0])
    if {key: head[key] for key in here} != here:
        sys.exit(f"{file} is of other pictures, code or hardware; choose another --out")
    config = TrainConfig.model_validate(head["config"])
    return RecordedSet(name, data, config, head["space"], file, work)


def first_pictures(data: Splits, train: int | None, val: int) -> Splits:
    """The data set with the first pictures of train and val only."""
    return replace(
        data,
        train=replace(data.train, pictures=data.train.pictures[:train]),
        val=replace(data.val, pictures=data.val.pictures[:val]),
        test=None,
    )


def _counts(data: Splits) -> dict[str, int]:
    return {split.name: len(split.pictures) for split in (data.train, data.val)}


def written_by_init(place: Path, file: Path, data: Splits) -> tuple[TrainConfig, dict[str, Any]]:
    """The configuration and the space of the search.yaml that `init` writes for a data set.

    Args:
        place: The data set.
        file: The search.yaml, which is written.
        data: The pictures with which each `auto` is resolved.
    """
    file.unlink(missing_ok=True)
    write_search(place, file, lambda _: None)
    raw = read_config(file, {})
    if place == make_digits(cache_folder()):
        embedded = read_yaml(DEFAULT_FILE)
        raw["model"] = embedded["model"]
        raw["train"]["augment"] = embedded["train"]["augment"]
    config = checked_config(raw, file.parent)
    base = TrainConfig(model=config.model, train=config.train)
    resolved = resolve_auto(base, data, threads=1)
    values = {
        "train.ema": EMA,
        "train.precision": resolved.precision,
        "train.trunk_cache": resolved.trunk_cache,
    }
    return with_values(base, values), config.space


def record(sets: list[RecordedSet], options: argparse.Namespace) -> None:
    """Train all trials that no other process trains or has trained."""
    values = {each.name: each.values(options.configurations) for each in sets}
    for seed, number in product(range(options.seeds), range(1 + options.configurations)):
        for each in sets:
            lock = FileLock(each.work / f"{number}-{seed}.lock", timeout=0)
            try:
                with lock:
                    if _is_recorded(each, number, seed):
                        continue
                    trial = Trial(each, number, seed, values[each.name][number])
                    _add_line(each, trial.run())
                    shutil.rmtree(trial.folder)
            except Timeout:  # another process trains it
                continue
            line = f"{each.name} {number}, seed {seed}: {len(each.trials())} recorded"
            print(line, file=sys.stderr, flush=True)


def _is_recorded(of: RecordedSet, number: int, seed: int) -> bool:
    return any((trial["number"], trial["seed"]) == (number, seed) for trial in of.trials())


def _add_line(to: RecordedSet, trial: dict[str, Any]) -> None:
    with FileLock(f"{to.work}.lock"):
        lines = [json.loads(line) for line in to.file.read_text().splitlines()]
        _write_lines(to.file, [*lines, trial])


def _write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    write_atomically("".join(f"{json.dumps(line)}\n" for line in lines).encode(), file)


class Trial:
    """One configuration with one seed, trained for all of its epochs."""

    def __init__(self, of: RecordedSet, number: int, seed: int, values: Values) -> None:
        self.of, self.number, self.seed, self.values = of, number, seed, values
        self.config = with_values(of.config, {**values, "train.seed": seed})
        self.folder = of.work / f"{number}-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "epochs.json"
        self.epochs = json.loads(self.file.read_text()) if self.file.is_file() else []
        self.clock: float | None = None
        """Processor time at which the current epoch began."""
        self.data = TrialData.open(self.config, of.data, 0, lambda: None)
        # weights that differ come from a checkpoint
        torch.manual_seed(seed)
        self.detector = build(self.config.model, len(of.data.categories))
        self.phases = plan(self.config.train, len(self.detector.stages))

    def run(self) -> dict[str, Any]:
        """Train, or go on; returns the line of the file."""
        cache = PhaseCache(self.of.work / "phases", cap=PHASES_CAP)
        end, text = "finished", ""
        try:
            fit(self.config, self.of.data, self.folder, self._report, cache, on_step=self._on_step)
        except tuple(ENDS) as error:
            end, text = ENDS[type(error)], str(error)
        columns = {name: [epoch[name] for epoch in self.epochs] for name in COLUMNS}
        identity = {"number": self.number, "seed": self.seed, "params": self.values}
        return {**identity, "end": end, **({"text": text} if text else {}), **columns}

    def _on_step(self) -> None:
        if self.clock is None:
            self.clock = time.process_time()

    def _report(self, report: EpochReport) -> bool:
        if len(self.epochs) < report.epoch:
            now = time.process_time()
            cpu = None if self.clock is None else now - self.clock
            training = len(self.of.data.train.pictures) / report.images_per_second
            epoch = {
                "depth": report.depth,
                "averaged": report.map,
                "raw": report.map if report.phase == "head" else self._raw_map(report),
                "training_seconds": training,
                "scoring_seconds": report.seconds - training,
                "images_per_second": report.images_per_second,
                "cpu_seconds": cpu,
            }
            self.epochs.append({name: _rounded(value) for name, value in epoch.items()})
            write_atomically(json.dumps(self.epochs).encode(), self.file)
        self.clock = None
        return True

    def _raw_map(self, report: EpochReport) -> float | None:
        """Val AP of the weights that training goes on from; None if they are gone."""
        checkpoint = load_last(self.folder)
        if checkpoint is None or len(checkpoint["reports"]) != report.epoch:
            return None
        phase = next(phase for phase in self.phases if report.epoch <= phase.end)
        features = self.data.frozen_features(self.detector, phase, lambda: None)
        # all of it at each epoch: depth never falls
        self.detector.load_state_dict(checkpoint["model"], strict=False)
        detections = detect(
            self.detector,
            self.of.data.val,
            self.data.val_canvases,
            precision=self.config.train.precision,
            batch_size=BATCH_SIZE[default_device().type],
            features=features.get("val"),
        )
        return score(self.data.truth, detections, self.config.model.detections)["map"]


COLUMNS = (
    "depth",
    "averaged",
    "raw",
    "training_seconds",
    "scoring_seconds",
    "images_per_second",
    "cpu_seconds",
)
"""Lists of a trial's line."""


def _rounded(value: float | None) -> float | None:
    return value if value is None else round(value, 5 if value < 1 else 2)


if __name__ == "__main__":
    main()
