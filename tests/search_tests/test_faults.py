"""Faults: what may happen to a search in a night, done to a real one on a tiny canvas.

Each test breaks something, lets the search reach its end, and has `check` look at the whole: study,
MLflow, table, export. The code under test is a copy, so that a test can plant a fault in a worker.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from search.config import SearchConfig, resolve, trial_folder, write_yaml
from search.exports import evaluate_model
from search.results import config_of
from search.space import read_space
from search.study import End, Study, TrialRecord, read_study
from search.trial import STACKS
from trainer.checkpoint import BEST, LAST, load
from trainer.config import Data, override
from trainer.data.dataset import Splits
from trainer.fit import fit

pytestmark = pytest.mark.faults

Make = Callable[..., Any]
ROOT = Path(__file__).parents[2]
TRIALS, EPOCHS = 3, 5
EPOCH_STARTS = "                started = time.monotonic()\n                on_step()\n"
"""The place in fit.py where an epoch starts; `folder` is the trial's, `epoch` counts from 0."""
COUNTED = """\
                with (folder / "began").open("a") as began:
                    began.write(f"{epoch}\\n")
"""


@dataclass
class Server:
    """An MLflow server in a process of its own, which can go away and come back."""

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
    """A search that something happens to."""

    place: Path
    code: Path
    raw: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def config(self) -> SearchConfig:
        return resolve(self.raw, self.place)

    @property
    def study(self) -> Study:
        return read_study(self.config.folder, self.config.name)

    def start(self, *options: str) -> None:
        file = self.place / "faulty.yaml"
        file.write_text(write_yaml(self.raw))
        with (self.place / "out").open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "search.cli", "search", str(file), *options],
                cwd=self.place,
                env={**os.environ, "PYTHONPATH": str(self.code), "RAY_worker_niceness": "0"},
                stdout=out,
                stderr=out,
            )

    def wait(self, seconds: float = 85) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def run(self) -> None:
        self.start()
        assert self.wait() == 0, self.out

    @property
    def out(self) -> str:
        return (self.place / "out").read_text()

    def until_epoch(self, epochs: int) -> None:
        """Wait until some trial that runs has so many epochs."""

        def reached() -> bool:
            with suppress(FileNotFoundError, KeyError):
                records = self.study.records.values()
                return any(r.end is None and len(r.reports) >= epochs for r in records)
            return False

        until(reached, 60)

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
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in found if "ray::ImplicitFunc" in " ".join(p.cmdline())]


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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def faulty(make_raw: Make, tmp_path: Path, server: Server) -> Iterator[Callable[..., Faulty]]:
    """A search of three trials; `plant` runs in a worker where an epoch starts."""
    made: list[Faulty] = []

    def make(plant: str = "", **changes: Any) -> Faulty:
        code = tmp_path / "code"
        for name in ("trainer", "search", "clusters"):
            shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        planted = COUNTED + "".join(f"                {line}\n" for line in plant.splitlines())
        edit(code / "trainer" / "fit.py", EPOCH_STARTS, planted + EPOCH_STARTS)
        raw = make_raw(
            {
                "name": tmp_path.name,
                "tracking": server.uri,
                "train.unfreeze.epochs": EPOCHS - 1,
                "space": {
                    "train.unfreeze.lr": {"log": [1e-4, 2e-3]},
                    "train.unfreeze.depth": {"int": [0, 5]},
                },
                "search.trials": TRIALS,
                "search.asha": "off",
                "resources": {"cpus_per_trial": 1},
                "storage": str(tmp_path / "searches"),
            }
        )
        for path, value in changes.items():
            override(raw, path.replace("__", "."), value)
        made.append(Faulty(tmp_path, code, raw))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None:
            end_tree(one.process.pid)


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
    """The whole of a search that reached its end: `ends` of trials that did not finish, and so many
    epochs begun more than once at most."""
    study = search.study
    assert study.get("state") == "done", search.out
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
    assert sum(_repeated(search, n) for n in study.records) <= repeats
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


def _repeated(search: Faulty, number: int) -> int:
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
    found = evaluate_model(str(winner), tiny_data.train.parent, "val", search.config.storage, None)
    assert found["figures"] == pytest.approx(kept["val"]["figures"], abs=1e-4)


def check_as_unbroken(search: Faulty, study: Study, number: int, data: Splits) -> None:
    """A trial came to the same bits as one that nothing happened to."""
    config = search.config
    record = study.records[number]
    own = config_of(config, read_space(config.space), record, study.get("precision"))
    place = search.place / "unbroken"
    maps: list[float] = []

    def report(epoch: Any) -> bool:
        maps.append(epoch.map)
        return True

    fit(own, data, place, report)
    assert maps == [r.map for _, r in sorted(record.reports.items())]
    ours = load(trial_folder(config.folder, number) / BEST)["model"]
    theirs = load(place / BEST)["model"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- processes ------------------------------------------------------------------------------------


def test_a_worker_is_killed_in_an_epoch(faulty: Make, tiny: Splits, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    search.workers()[0].kill()
    assert search.wait() == 0, search.out
    study = check(search, tiny_data, repeats=1)
    hit = max(study.records, key=lambda n: _repeated(search, n))
    check_as_unbroken(search, study, hit, tiny)


@pytest.mark.timeout(300)
def test_the_driver_is_killed_at_random_moments_until_done(
    faulty: Make, tiny: Splits, tiny_data: Data
) -> None:
    search = faulty("time.sleep(0.7)")
    moments = random.Random(0)
    for _ in range(5):
        search.start()
        time.sleep(moments.uniform(8, 18))
        if search.process is not None and search.process.poll() is None:
            search.kill()
    search.run()
    study = check(search, tiny_data, repeats=10)  # two trials at once, five kills
    check_as_unbroken(search, study, 0, tiny)


def test_a_worker_dies_while_it_writes_a_checkpoint(
    faulty: Make, tiny: Splits, tiny_data: Data
) -> None:
    search = faulty()
    edit(
        search.code / "trainer" / "checkpoint.py",
        "            stream.write(content)\n",
        "            torn = file.parents[1] / 'torn'\n"
        "            if file.name == LAST and file.with_name(PREVIOUS).exists()"
        " and not torn.exists():\n"
        "                torn.touch()\n"
        "                stream.write(content[: len(content) // 2])\n"
        "                stream.flush()\n"
        "                os.kill(os.getpid(), 9)\n"
        "            stream.write(content)\n",
    )
    search.run()
    study = check(search, tiny_data, repeats=1)
    check_as_unbroken(search, study, 0, tiny)  # alone at first, with the head phase: it was hit


def test_a_worker_hangs(faulty: Make, tiny_data: Data) -> None:
    search = faulty(
        'if folder.name == "1" and epoch == 2 and not (folder / "hung").exists():\n'
        '    (folder / "hung").touch()\n'
        "    on_step()\n"
        "    time.sleep(1000)",
        search__hang_timeout=10,
    )
    search.start()
    stacks = trial_folder(search.config.folder, 1) / STACKS
    until(lambda: stacks.is_file() and "Timeout" in stacks.read_text(), 60)
    assert search.wait() == 0, search.out
    check(search, tiny_data, repeats=1)


def test_two_drivers_on_one_search(faulty: Make, tiny_data: Data) -> None:
    search = faulty()
    search.start()
    search.until_epoch(1)
    second = Faulty(search.place, search.code, search.raw)
    second.start()
    assert second.wait() == 1
    assert search.process is not None
    assert f"is being run by process {search.process.pid} on " in search.out
    assert search.wait() == 0, search.out
    check(search, tiny_data)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_orderly(faulty: Make, tiny_data: Data, number: signal.Signals) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    assert search.process is not None
    search.process.send_signal(number)
    assert search.wait(30) == 1, search.out
    assert "The same line again continues." in search.out
    assert search.study.get("state") == "interrupted"
    assert not search.study.optuna.get_trials(states=(TrialState.RUNNING,))
    client = MlflowClient(str(search.config.tracking))
    experiment = client.get_experiment_by_name(search.config.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    search.run()
    check(search, tiny_data, repeats=2)


def test_it_is_asked_to_stop_from_another_terminal(faulty: Make, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    line = [sys.executable, "-P", "-m", "search.cli", "stop", search.config.name]
    env = {**os.environ, "PYTHONPATH": str(search.code)}
    subprocess.run(line, cwd=search.place, env=env, check=True, stdout=subprocess.DEVNULL)
    assert search.wait(60) == 0, search.out
    assert search.study.get("state") == "stopped"
    search.run()
    check(search, tiny_data, repeats=2)


def test_its_time_is_over(faulty: Make, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)", search__time_budget=12)
    search.start()
    assert search.wait() in (0, 1), search.out
    assert search.study.get("state") == "out of time"
    assert not search.study.optuna.get_trials(states=(TrialState.RUNNING,))
    del search.raw["search"]["time_budget"]
    search.run()
    check(search, tiny_data, repeats=2)


def test_a_node_goes(faulty: Make, tiny_data: Data) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        search = faulty("time.sleep(0.5)", cluster=cluster.address)
        search.start()
        search.until_epoch(2)
        cluster.remove_node(nodes[0], allow_graceful=False)
        assert search.wait() == 0, search.out
        check(search, tiny_data, repeats=1)
    finally:
        cluster.shutdown()


# -- files ----------------------------------------------------------------------------------------


def test_the_latest_checkpoints_are_corrupt(faulty: Make, tiny: Splits, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.7)")
    search.start()
    search.until_epoch(3)
    search.kill()
    files = list((search.config.folder / "trials").glob(f"*/{LAST}"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    search.run()
    study = check(search, tiny_data, repeats=4)  # the one under way, and the one that was spoilt
    check_as_unbroken(search, study, 0, tiny)


def test_the_journals_last_line_is_torn(faulty: Make, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    search.kill()
    with (search.config.folder / "study.journal").open("a") as journal:
        journal.write('{"op_code": 8, "worker_id": "x", "tri')
    search.run()
    check(search, tiny_data, repeats=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small tmpfs")
def test_the_disk_is_full(faulty: Make, tiny_data: Data, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        filler = small / "filler"
        filler.write_bytes(bytes(185 << 20))
        search = faulty(storage=str(small))
        search.start()
        assert search.wait() == 1, search.out
        assert "No space left on device" in search.out
        assert "Traceback" not in search.out
        filler.unlink()
        search.run()
        check(search, tiny_data, repeats=4)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


# -- what a trial comes to ------------------------------------------------------------------------


def test_a_trial_has_no_finite_loss(faulty: Make, tiny_data: Data) -> None:
    search = faulty(
        'if folder.name == "1" and epoch == 2:\n'
        '    next(run.detector.head.parameters()).data.fill_(float("nan"))'
    )
    search.run()
    study = check(search, tiny_data, ends={1: End.DIVERGED})
    assert study.optuna.trials[1].state is TrialState.PRUNED
    assert len(study.records[1].reports) == 2


def test_a_trial_needs_more_memory_than_there_is(faulty: Make, tiny_data: Data) -> None:
    search = faulty('if folder.name == "1" and epoch == 2:\n    torch.empty(10**15)')
    search.run()
    study = check(search, tiny_data, ends={1: End.OUT_OF_MEMORY})
    assert "10" in study.records[1].text


def test_ray_ends_a_worker_for_its_memory(
    faulty: Make, tiny_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    room = 3 << 30
    if memory.available < 3 * room:
        pytest.skip("needs 9 GiB of free memory")
    used = 1 - memory.available / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", str(used + room / memory.total))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    search = faulty(
        'if folder.name == "1" and epoch == 2:\n'
        "    hoard = []\n"
        "    for _ in range(60):\n"
        '        hoard.append(b"x" * (100 << 20))\n'
        "        time.sleep(0.1)\n"
        "    time.sleep(1000)"
    )
    search.run()
    check(search, tiny_data, ends={1: End.OUT_OF_MEMORY})


def test_a_bug_ends_three_trials_alike(faulty: Make) -> None:
    search = faulty('if epoch == 2:\n    {}["missing"]', search__trials=9)
    search.start()
    assert search.wait() == 1
    study = search.study
    assert study.get("state") == "failed"
    assert "3 trials ended alike" in search.out and "KeyError: 'missing'" in search.out
    assert len(study.ended()) < 6
    assert not study.optuna.get_trials(states=(TrialState.RUNNING,))


# -- MLflow ---------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_mlflow_is_down_for_a_minute(faulty: Make, tiny_data: Data, tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    server = Server(tmp_path / "mlflow")
    server.start()
    try:
        search = faulty("time.sleep(1.5)", tracking=server.uri)
        search.start()
        search.until_epoch(1)
        server.stop()
        time.sleep(60)
        server.start()
        assert search.wait() == 0, search.out
        assert search.out.count("MLflow does not take our rows") == 1
        check(search, tiny_data)
    finally:
        server.stop()


def test_mlflow_never_comes(faulty: Make, tiny_data: Data, tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    server = Server(tmp_path / "mlflow")
    search = faulty(tracking=server.uri)
    search.run()
    assert search.study.get("state") == "done"
    assert "MLflow lacks" in search.out
    server.start()
    try:
        search.run()  # the same line fills in what was missed
        check(search, tiny_data)
    finally:
        server.stop()
