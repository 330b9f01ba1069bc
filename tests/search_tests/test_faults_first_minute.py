"""Faults in the first minute: a first search is killed while it makes what later searches use."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search.tracking.database import ensure_tables
from trainer.config import Data

from .faulty import ROOT, Faulty, Make, check, end_tree, prepare

pytestmark = pytest.mark.faults

MAKE_TABLES = """
import os, sys, time
from pathlib import Path
from search.tracking.database import ensure_tables
for after in range(1, 1000):
    file = Path(sys.argv[1]) / str(after) / "mlflow.db"
    child = os.fork()
    if not child:
        ensure_tables(file)
        os._exit(0)
    time.sleep(after * float(sys.argv[2]))
    os.kill(child, 9)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_mlflows_tables_are_complete_whenever_it_is_killed(tmp_path: Path) -> None:
    line = [sys.executable, "-c", MAKE_TABLES, str(tmp_path), "0.25"]
    subprocess.run(line, cwd=ROOT, check=True, timeout=580)
    places = sorted(tmp_path.iterdir(), key=lambda place: int(place.name))
    made = [place for place in places if (place / "mlflow.db").exists()]
    left = [place for place in places if list(place.glob(".*.part"))]
    assert made and len(left) > 3, "it was hit while it made them"
    for place in made:
        assert [
            e.name for e in MlflowClient(f"sqlite:///{place / 'mlflow.db'}").search_experiments()
        ]
    ensure_tables(left[-1] / "mlflow.db")
    assert MlflowClient(f"sqlite:///{left[-1] / 'mlflow.db'}").search_experiments()
    assert not list(left[-1].glob(".*.part*"))


BEGINNING = {
    "before anything": "code",
    "the canvases": "cache/unfreeze/canvases/*",
    "its folder": "searches/*/driver.lock",
    "its holder": "searches/*/driver.json",
    "its study": "searches/*/study.journal",
    "its config": "searches/*/search.yaml",
    "the data's picture": "searches/*/data.png",
    "MLflow's tables": ".mlflow.db.*.part",
    "MLflow's store": "mlflow.db",
    "its first trial": "searches/*/trials/*",
    "its first epoch": "searches/*/trials/*/last.pt",
}
"""What a first search makes, in about this order, and where."""


@pytest.fixture
def first(make_raw: Make, tmp_path: Path) -> Iterator[Faulty]:
    """A first search in its folder: MLflow's store and the cache are empty."""
    search = prepare(make_raw, tmp_path, "", search__trials=2)
    search.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    yield search
    if search.process is not None:
        end_tree(search.process.pid)


@pytest.mark.parametrize("moment", BEGINNING)
def test_a_first_search_is_killed_when_something_appears(
    first: Faulty, tiny_data: Data, moment: str
) -> None:
    kill_when(first, tiny_data, lambda: any(first.place.glob(BEGINNING[moment])))


@pytest.mark.parametrize("seconds", range(2, 60, 6))
def test_a_first_search_is_killed_in_its_first_minute(
    first: Faulty, tiny_data: Data, seconds: int
) -> None:
    late = time.monotonic() + seconds
    kill_when(first, tiny_data, lambda: time.monotonic() >= late)


def kill_when(search: Faulty, tiny_data: Data, now: Callable[[], bool]) -> None:
    """Kill a first search at a moment, unless it ends before, and continue it."""
    search.start()
    assert search.process is not None
    while search.process.poll() is None and not now():
        time.sleep(0.005)
    if search.process.poll() is None:
        search.kill()
    search.start()
    assert search.wait(300) == 0, search.out  # canvases and MLflow's tables are made first
    search.raw["tracking"] = f"sqlite:///{search.place / 'mlflow.db'}"
    check(search, tiny_data, repeats=2, trials=2)
