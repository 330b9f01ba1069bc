"""Faults of MLflow: its server goes away, or never comes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.study.search_state import SearchState
from trainer.config import Data

from .faulty import Faulty, Make, Server, check, end_tree, prepare

pytestmark = pytest.mark.faults


@pytest.fixture
def faulty(make_raw: Make, tmp_path: Path) -> Iterator[Callable[..., Faulty]]:
    """See `prepare`."""
    made: list[Faulty] = []

    def make(plant: str = "", **changes: Any) -> Faulty:
        made.append(prepare(make_raw, tmp_path, plant, **changes))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None:
            end_tree(one.process.pid)


@pytest.mark.timeout(600)
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
        assert search.out.count("MLflow did not take our rows") == 1
        check(search, tiny_data)
    finally:
        server.stop()


def test_mlflow_never_comes(faulty: Make, tiny_data: Data, tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    server = Server(tmp_path / "mlflow")
    search = faulty(tracking=server.uri)
    search.run()
    assert search.study.state == SearchState.DONE
    assert "MLflow lacks" in search.out
    server.start()
    try:
        search.run()  # the same command fills in what was missed
        check(search, tiny_data)
    finally:
        server.stop()
