"""Searches with a planted fault, and what must hold afterwards.

The code under test is a copy, so that a test can plant a fault in a worker.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from search.exports.evaluate import evaluate_model
from search.exports.trial_config import config_of
from search.space.config import SearchConfig
from search.space.config_file import write_yaml
from search.space.locations import trial_folder
from search.space.validation import checked_config
from search.study.record import End, TrialRecord
from search.study.search_state import SearchState
from search.study.storage import read_study
from search.study.study import Study
from trainer.config import Data
from trainer.config_fields import set_field
from trainer.data.dataset import Splits
from trainer.model.checkpoint import BEST, load
from trainer.training.fit import fit

Make = Callable[..., Any]
ROOT = Path(__file__).parents[2]
TRIALS, EPOCHS = 3, 5
FIT, CHECKPOINT = Path("trainer/training/fit.py"), Path("trainer/model/checkpoint.py")
"""The files in which tests plant faults."""
EPOCH_STARTS = "                _run_epoch(state, trial_data, phase, epoch, on_step)\n"
"""The place in fit.py where an epoch starts; `folder` is the trial's, `epoch` counts from 0."""
CHECKPOINT_ENDS = "        stream.write(hashing.total.digest())\n"
"""The place in checkpoint.py where all but the end of a file is written."""
COUNTED = """\
                with (folder / "began").open("a") as began:
                    began.write(f"{epoch}\\n")
"""


@dataclass
class Server:
    """An MLflow server in another process, which can go away and come back."""

    place: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        line = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        store = f"sqlite:///{self.place / 'mlflow.db'}"
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*line, "--backend-store-uri", store],
                cwd=self.place,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
            )
        until(self._answers, 60)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        assert self.process is not None
        end_tree(self.process.pid)


@dataclass
class Faulty:
    """A search with a planted fault."""

    place: Path
    code: Path
    raw: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    enter: list[str] = field(default_factory=list)
    """What to put before a command, for a search on another host."""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> SearchConfig:
        return checked_config(self.raw, self.place)

    @property
    def study(self) -> Study:
        return read_study(self.config.folder, self.config.name)

    def start(self, *options: str) -> None:
        file = self.place / "faulty.yaml"
        file.write_text(write_yaml(self.raw))
        with (self.place / "out").open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *self.enter,
                    sys.executable,
                    "-P",
                    "-m",
                    "search.commands.cli",
                    "search",
                    str(file),
                    *options,
                ],
                cwd=self.place,
                env={
                    **os.environ,
                    "PYTHONPATH": str(self.code),
                    "RAY_worker_niceness": "0",
                    **self.environment,
                },
                stdout=out,
                stderr=out,
                process_group=0,
            )

    def wait(self, seconds: float = 300) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def run(self) -> None:
        self.start()
        assert self.wait() == 0, self.out

    @property
    def out(self) -> str:
        return (self.place / "out").read_text()

    def until_epoch(self, epochs: int, seconds: float = 240) -> None:
        """Wait until some trial that runs has so many epochs."""

        def reached() -> bool:
            with suppress(FileNotFoundError, KeyError):
                records = self.study.records.values()
                return any(r.end is None and len(r.reports) >= epochs for r in records)
            return False

        until(reached, seconds)

    def kill(self) -> None:
        """Kill the driver as the kernel would, and see its Ray off."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(children, timeout=15)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        workers = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # Ray starts some that end at once
                if "ray::ImplicitFunc" in " ".join(child.cmdline()):
                    workers.append(child)
        return workers


def until(reached: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.2)


def end_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(tree, timeout=10)


def prepare(make_raw: Make, place: Path, plant: str, **changes: Any) -> Faulty:
    """A search of three trials; `plant` runs in a worker where an epoch starts."""
    code = place / "code"
    for name in ("trainer", "search", "clusters"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    planted = COUNTED + "".join(f"                {line}\n" for line in plant.splitlines())
    edit(code / FIT, EPOCH_STARTS, planted + EPOCH_STARTS)
    raw = make_raw(
        {
            "name": place.name,
            "train.unfreeze.epochs": EPOCHS - 1,
            "space": {
                "train.unfreeze.lr": {"log": [1e-4, 2e-3]},
                "train.unfreeze.depth": {"int": [0, 5]},
            },
            "search.trials": TRIALS,
            "search.asha": "off",
            "resources": {"cpus_per_trial": 1},
            "storage": str(place / "searches"),
        }
    )
    for path, value in changes.items():
        set_field(raw, path.replace("__", "."), value)
    return Faulty(place, code, raw)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


# -- what must hold after each fault --------------------------------------------------------------


def check(
    search: Faulty,
    tiny_data: Data,
    *,
    ends: dict[int, End] | None = None,
    repeats: int = 0,
    trials: int = TRIALS,
) -> Study:
    """Check all that a search leaves.

    `ends` are those of trials that did not finish; `repeats` epochs at most began more than once.
    """
    study = search.study
    assert study.state == SearchState.DONE, search.out
    assert list(study.records) == list(range(trials))
    wanted = {number: End.FINISHED for number in range(trials)} | (ends or {})
    assert {n: r.end for n, r in study.records.items()} == wanted, search.out
    assert not study.optuna.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    for record in study.records.values():
        assert list(record.reports) == list(range(1, len(record.reports) + 1))
        if record.end is End.FINISHED:
            assert len(record.reports) == EPOCHS
    if search.config.study is None:
        _check_journal(search)
    assert sum(repeated(search, n) for n in study.records) <= repeats
    _check_mlflow(search, study)
    _check_winner(search, study, tiny_data)
    return study


def _check_journal(search: Faulty) -> None:
    written = Counter(
        (entry["trial_id"], key)
        for entry in map(json.loads, (search.config.folder / "study.journal").open())
        for key in entry.get("user_attr", {})
        if "trial_id" in entry and key.startswith("epoch ")
    )
    assert set(written.values()) == {1}


def repeated(search: Faulty, number: int) -> int:
    file = trial_folder(search.config.folder, number) / "began"
    began = Counter(file.read_text().split()) if file.is_file() else Counter()
    return sum(count - 1 for count in began.values())


def _check_mlflow(search: Faulty, study: Study) -> None:
    client = MlflowClient(str(search.config.tracking))
    experiment = client.get_experiment_by_name(search.config.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "unfreeze.trial" not in run.data.tags]
    children = {int(run.data.tags["unfreeze.trial"]): run for run in runs if run not in parents}
    assert len(parents) == 1 and len(runs) == 1 + len(study.records)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    for number, record in study.records.items():
        history = client.get_metric_history(children[number].info.run_id, "val/map")
        assert sorted((row.step, row.value) for row in history) == [
            (epoch, report.map) for epoch, report in sorted(record.reports.items())
        ]
    best = _best(study)
    assert best.best is not None
    assert parents[0].data.tags["unfreeze.best_trial"] == str(best.number)
    assert parents[0].data.metrics["best_map"] == best.best.map


def _best(study: Study) -> TrialRecord:
    able = [r for r in study.records.values() if r.end is End.FINISHED]
    return max(able, key=lambda r: (r.best.map if r.best else 0.0, -r.number))


def _check_winner(search: Faulty, study: Study, tiny_data: Data) -> None:
    winner = search.config.folder / "winner"
    kept = json.loads((winner / "metrics.json").read_text())
    assert kept["of"]["trial"] == _best(study).number
    measured = evaluate_model(
        str(winner), tiny_data.train.parent, "val", search.config.storage, None
    )
    assert measured["figures"] == pytest.approx(kept["val"]["figures"], abs=1e-4)


def check_as_unbroken(search: Faulty, study: Study, number: int, data: Splits) -> None:
    """A trial came to the same bits as one that nothing happened to."""
    config = search.config
    record = study.records[number]
    trial_config = config_of(config, record, study.precision)
    place = search.place / "unbroken"
    maps: list[float] = []

    def report(epoch: Any) -> bool:
        maps.append(epoch.map)
        return True

    fit(trial_config, data, place, report)
    assert maps == [r.map for _, r in sorted(record.reports.items())]
    ours = load(trial_folder(config.folder, number) / BEST)["model"]
    theirs = load(place / BEST)["model"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
