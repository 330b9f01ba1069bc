"""Fixtures of the tests of search: made-up reports, a small search, a working folder."""

import contextlib
import copy
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from rich.console import Console

from search.ranking.results import SearchResult
from search.reporting.progress import Lines
from search.running.single import train
from search.space.config import SearchConfig
from search.space.config_file import stored_config, write_yaml
from search.space.space import read_space
from search.space.validation import checked_config
from search.study.record import End, TrialRecord
from search.study.search_state import SearchState
from search.study.storage import open_study
from search.study.study import Study
from trainer.config import Data, InputError
from trainer.config_fields import set_field
from trainer.epoch_report import EpochReport, GroupReport
from trainer.evaluation.coco_metrics import FIGURES
from trainer.evaluation.review import CURVES, MISSES, PREDICTIONS, REVIEW

SEARCH: dict[str, Any] = {
    "name": "tiny",
    "model": {"weights": "none", "image_size": 96},
    "train": {
        "precision": "fp32",
        "trunk_cache": "off",
        "head": {"epochs": 1, "batch_size": 4},
        "unfreeze": {"epochs": 9, "batch_size": 4, "depth": 2, "open_epochs": 1},
    },
    "register_model": False,
    "search": {"trials": 6, "confirm": "off", "asha": {"grace_period": 1, "reduction_factor": 3}},
}
SPACE: dict[str, Any] = {
    "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
    "train.unfreeze.depth": {"int": [0, "all"]},
    "train.unfreeze.schedule": {"choice": ["gradual", "at_once"]},
}


ALL_KINDS = {
    "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
    "train.unfreeze.backbone_lr_ratio": {"uniform": [0.05, 0.5]},
    "train.unfreeze.depth": {"int": [1, 3]},
    "train.unfreeze.batch_size": {"choice": [2, 4]},
}


def errors_of(call: Callable[..., Any], *arguments: Any) -> list[str]:
    """The errors of the InputError that a call raises."""
    with pytest.raises(InputError) as raised:
        call(*arguments)
    return raised.value.errors


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's folder is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles take what they print to for a terminal of 80 columns, without colours."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def make_raw(tiny_data: Data) -> Callable[..., dict[str, Any]]:
    """The content of a search.yaml; `changes` are by dotted field, a space is one field."""

    def make(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        raw = copy.deepcopy(SEARCH)
        raw["data"] = {"train": str(tiny_data.train), "val": str(tiny_data.val)}
        for path, value in (changes or {}).items():
            set_field(raw, path, value)
        return raw

    return make


@pytest.fixture
def make_search(make_raw: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., Any]:
    """A resolved search over the tiny data set, stored in the test's folder."""

    def make(changes: dict[str, Any] | None = None) -> SearchConfig:
        return checked_config(make_raw(changes), tmp_path)

    return make


@pytest.fixture
def write_search(make_raw: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    """A search.yaml of the tiny data set in the test's folder."""

    def make(changes: dict[str, Any] | None = None) -> Path:
        file = tmp_path / "tiny.yaml"
        file.write_text(write_yaml(make_raw(changes)))
        return file

    return make


@pytest.fixture(scope="session")
def make_reports() -> Callable[..., list[EpochReport]]:
    """The reports of a trial with an AP for each epoch; the first `head` are the head phase."""

    def make(maps: list[float], *, head: int = 1, forked: int = 0) -> list[EpochReport]:
        return [
            EpochReport(
                epoch=epoch,
                phase="head" if epoch <= head else "unfreeze",
                depth=0 if epoch <= head else 2,
                unfreeze_epoch=max(0, epoch - head),
                map=value,
                map_50=min(1.0, 2 * value),
                map_75=value / 2,
                best_map=max(maps[:epoch]),
                losses={"classification": 1 / epoch},
                groups={
                    "stage5": GroupReport(1e-4, 1e-4, 10 if epoch > head else 0),
                    "stage5 no decay": GroupReport(1e-4, 0.0, 5 if epoch > head else 0),
                    "head": GroupReport(1e-3, 1e-4, 100),
                },
                seconds=2.0,
                images_per_second=50.0,
                forked=epoch <= forked,
            )
            for epoch, value in enumerate(maps, start=1)
        ]

    return make


@pytest.fixture(scope="session")
def make_record(make_reports: Callable[..., list[EpochReport]]) -> Callable[..., TrialRecord]:
    """The record of a trial with these APs."""

    def make(
        number: int,
        maps: list[float],
        *,
        end: End | None = None,
        head: int = 1,
        forked: int = 0,
        origin: str = "sampled",
        parameters: dict[str, Any] | None = None,
    ) -> TrialRecord:
        reports = {r.epoch: r for r in make_reports(maps, head=head, forked=forked)}
        times = {epoch: float(epoch) for epoch in reports}
        return TrialRecord(number, origin, parameters or {}, reports=reports, times=times, end=end)

    return make


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store of MLflow, which takes seconds to make. Do not write to it."""
    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def store(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tracking URI of a SQLite store that tests share; each names its experiments."""
    return f"sqlite:///{shutil.copy(tables, tmp_path_factory.mktemp('store'))}"


@dataclass(frozen=True)
class MadeUp:
    """A finished search without training; its folder has the files of a real one."""

    config: SearchConfig
    study: Study


@pytest.fixture(scope="session")
def made_up(
    make_raw: Callable[..., dict[str, Any]],
    make_reports: Callable[..., list[EpochReport]],
    tmp_path_factory: pytest.TempPathFactory,
) -> MadeUp:
    """Ten trials and one that confirms the winner, with its export and its review.

    Deeper trials are better; some are pruned, diverged or failed. Do not write to it.
    """
    place = tmp_path_factory.mktemp("made-up")
    raw = make_raw({"name": "made-up", "space": SPACE, "storage": str(place), "tracking": "off"})
    config = checked_config(raw, place)
    study = open_study(config.folder, config.name, seed=1, trials=10)
    study.id, study.data_digest, study.precision = "made up", "d" * 64, "fp32"
    parameters = {"train.unfreeze.lr": 1e-3, "train.unfreeze.depth": 2}
    study.enqueue({**parameters, "train.unfreeze.schedule": "gradual"}, "as written")
    ends = [End.FINISHED, End.PRUNED, End.DIVERGED, End.ERROR, End.PRUNED] + [End.FINISHED] * 5
    for number, end in enumerate(ends):
        study.ask(read_space(SPACE), config)
        depth = int(study.records[number].parameters["train.unfreeze.depth"])
        epochs = 10 if end is End.FINISHED else 2
        maps = [0.1 + epoch * (0.02 + depth / 300) for epoch in range(epochs)]
        for report in make_reports(maps, forked=min(1, number)):
            study.record(number, report)
        text = "KeyError: <script>alert(1)</script> at http://me:canary@host/"
        study.end(number, end, text if end is End.ERROR else "")
    best = max(study.records.values(), key=lambda r: r.best.map if r.best else 0)
    study.enqueue(best.parameters, f"confirms #{best.number}", confirms=best.number, seed=1)
    study.ask(read_space(SPACE), config)
    assert best.best is not None
    for report in make_reports([best.best.map - 0.01 * k for k in range(9, -1, -1)]):
        study.record(10, report)
    study.end(10, End.FINISHED)
    study.state = SearchState.DONE
    _write_export(config, best.number)
    return MadeUp(config, study)


def _write_export(config: SearchConfig, trial: int) -> None:
    (config.folder / "search.yaml").write_text(write_yaml(stored_config(config)))
    figures = dict.fromkeys(FIGURES, 0.5)
    split = {"figures": figures, "per_class": {"red": 0.6, "</script><b>": None}}
    test = {**split, "figures": figures | {"map": 0.47}, "looks": 1}
    metrics = {"of": {"trial": trial, "epoch": 10}, "val": split, "test": test}
    pictures = config.folder / "winner" / "pictures"
    review = config.folder / "trials" / str(trial) / REVIEW
    for place in (pictures, review):
        place.mkdir(parents=True)
    (config.folder / "winner" / "metrics.json").write_text(json.dumps(metrics))
    for file in (pictures / "one.jpg", review / PREDICTIONS, review / MISSES, review / CURVES):
        Image.new("RGB", (1400, 900), "teal").save(file)


def free_port() -> int:
    """A port of this machine that no process uses."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def serving(line: list[str], url: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run a server in this block, which starts when the server answers."""
    variables = os.environ | (environment or {})
    server = subprocess.Popen(line, env=variables, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10):
                break
            assert server.poll() is None, "the server died"
            assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # and its workers
        server.wait(30)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database in a PostgreSQL server for these tests."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        pytest.skip("needs Debian's postgresql")
    programs = versions[-1].parent
    # not below pytest's folder, which only its user may enter
    place = Path(tempfile.mkdtemp(prefix="unfreeze-postgresql-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(place, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    port = free_port()

    def call(*line: object) -> None:
        subprocess.run(
            [*as_user, *map(str, line)], check=True, cwd=place, stdout=subprocess.DEVNULL
        )

    data = place / "data"
    call(programs / "initdb", "-D", data, "-U", "unfreeze", "--auth=trust")
    options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
    call(programs / "pg_ctl", "-D", data, "-l", place / "log", "-w", "-o", options, "start")
    try:
        yield f"postgresql://unfreeze:any@127.0.0.1:{port}/postgres"
    finally:
        call(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(place)


@dataclass(frozen=True)
class Trained:
    """A finished `unfreeze train`: a search's folder with one trial, and its winner."""

    raw: dict[str, Any]
    config: SearchConfig
    result: SearchResult
    said: list[str]

    @property
    def winner(self) -> Path:
        return self.config.folder / "winner"


@pytest.fixture(scope="session")
def trained(
    make_raw: Callable[..., dict[str, Any]], store: str, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """The tiny configuration with one epoch per phase, trained once. Do not write to it."""
    place = tmp_path_factory.mktemp("trained")
    raw = make_raw(
        {
            "name": "once",
            "storage": str(place / "searches"),
            "tracking": store,
            "train.unfreeze.epochs": 1,
            "train.unfreeze.batch_size": 2,
            "search.trials": 1,
        }
    )
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        config = checked_config(raw, place)
        result = train(config, Lines(Console(file=out, width=200)))
    return Trained(raw, config, result, out.getvalue().splitlines())
