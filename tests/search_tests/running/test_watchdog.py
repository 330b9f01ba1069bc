"""A worker that hangs dies; one that loads has another limit than one that trains."""

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

watchdog.LOADING = float(sys.argv[1])
with watchdog.Watchdog(Path("stacks.txt"), float(sys.argv[2])) as own:
    for _ in range(int(sys.argv[3])):
        time.sleep(0.3)
        own.step()
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


def test_what_takes_too_long_to_load_is_told_as_such(tmp_path: Path) -> None:
    said = hang(0.5, 0.1, 0, tmp_path)
    assert said.startswith("no step within 0 s, in which its model was to be loaded:\nTimeout")


def test_loading_is_no_hanging_and_a_missing_step_is(tmp_path: Path) -> None:
    said = hang(60, 0.9, 2, tmp_path)  # loads for as long as no step may take
    assert said.startswith("Timeout (0:00:00.9") and "loaded" not in said


def test_loading_has_at_least_the_time_of_a_step(tmp_path: Path) -> None:
    file = tmp_path / "stacks.txt"
    file.write_text("of an earlier worker\n")
    with Watchdog(file, 2 * watchdog.LOADING):
        assert "within 7200 s" in file.read_text()
    assert file.read_text() == "of an earlier worker\n"


def test_nothing_is_watched_while_it_pauses_and_after_it(tmp_path: Path) -> None:
    file = tmp_path / "stacks.txt"
    with Watchdog(file, 0.05) as own:
        own.step()
        own.pause()
        time.sleep(0.2)
        own.step()
    time.sleep(0.2)
    assert file.read_text() == ""
