"""Why a worker was lost, from Ray's text: the last test fails first when an upgrade changes it."""

import mmap
from pathlib import Path
from typing import Any, cast

import pytest
import ray

from search.running.tune.lost_workers import (
    NODE_LOST,
    OUT_OF_MEMORY,
    killed_for_memory,
    largest_worker,
    last_error,
    lost_with_node,
)

KILLED = """\
2 worker(s) were killed due to the node running low on memory.
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
77\t9.00\tpython other.py
42\t2.37\tray::ImplicitFunc.train
43\t0.59\tray::ImplicitFunc.train
"""
"""Ray's words, shortened."""


class Failed:
    """All that is asked of a trial of Tune's."""

    def __init__(self, error_file: str | None) -> None:
        self.error_file = error_file


def test_only_the_last_failure_counts(tmp_path: Path) -> None:
    file = tmp_path / "error.txt"
    file.write_text("Failure # 1\nfirst\nFailure # 2\nsecond\n")
    assert last_error(cast("Any", Failed(str(file)))) == "2\nsecond\n"
    assert last_error(cast("Any", Failed(None))) == ""
    assert last_error(cast("Any", Failed(str(tmp_path / "none")))) == ""


def test_memory_and_nodes_are_different_reasons() -> None:
    assert killed_for_memory(KILLED) and not lost_with_node(KILLED)
    assert lost_with_node("The actor is dead because its node has died.")
    alone = "The actor is dead because its worker process has died."
    assert not lost_with_node(alone) and not killed_for_memory(alone)


def test_the_largest_worker_is_named_by_its_process_id() -> None:
    assert largest_worker(KILLED) == 42
    assert largest_worker("Task was killed due to memory pressure.") is None


@pytest.mark.parametrize("words", [*NODE_LOST, *OUT_OF_MEMORY])
def test_ray_still_uses_these_words(words: str) -> None:
    core = Path(ray.__file__).parent / "core" / "src" / "ray"
    for program in (core / "gcs" / "gcs_server", core / "raylet" / "raylet"):
        with program.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if content.find(words.encode()) >= 0:
                return
    pytest.fail(f"Ray no longer says {words!r}")
