"""A worker that hangs ends; loading has another limit than training."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.running import watchdog
from search.running.watchdog import Watchdog

HANG = """
import sys, time
from pathlib import Path
from search.running import watchdog

watchdog.FIRST_STEP_SECONDS = float(sys.argv[1])
with watchdog.Watchdog(Path("stacks.txt"), float(sys.argv[2])) as guard:
    for _ in range(int(sys.argv[3])):
        time.sleep(0.3)
        guard.step()
    time.sleep(30)
"""


def hang(loading: float, timeout: float, steps: int, folder: Path) -> str:
    line = [sys.executable, "-c", HANG, *map(str, (loading, timeout, steps))]
    started = time.monotonic()
    done = subprocess.run(line, cwd=folder, timeout=60, check=False)
    assert done.returncode == 1 and time.monotonic() - started < 25
    return (folder / "stacks.txt").read_text()


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(watchdog.__file__).parents[2]))


def test_a_model_that_loads_too_long_is_named_as_the_reason(tmp_path: Path) -> None:
    said = hang(0.5, 0.1, 0, tmp_path)
    assert said.startswith("no step within 0 s, in which its model was to be loaded:\nTimeout")


def test_slow_loading_is_allowed_and_a_missing_step_is_not(tmp_path: Path) -> None:
    said = hang(60, 0.9, 2, tmp_path)  # loads for as long as no step may take
    assert said.startswith("Timeout (0:00:00.9") and "loaded" not in said


def test_loading_has_at_least_the_time_of_a_step(tmp_path: Path) -> None:
    file = tmp_path / "stacks.txt"
    file.write_text("of an earlier worker\n")
    with Watchdog(file, 2 * watchdog.FIRST_STEP_SECONDS):
        assert "within 7200 s" in file.read_text()
    assert file.read_text() == "of an earlier worker\n"


def test_nothing_is_watched_during_a_pause_and_after_the_end(tmp_path: Path) -> None:
    file = tmp_path / "stacks.txt"
    with Watchdog(file, 0.05) as guard:
        guard.step()
        guard.pause()
        time.sleep(0.2)
        guard.step()
    time.sleep(0.2)
    assert file.read_text() == ""
