"""One driver per search."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from search.study import lock
from search.study.lock import SearchBusyError, is_held, locked
from trainer.config import InputError

FOLDER = Path("searches/cells")


def test_a_locked_folder_is_busy_and_the_error_names_the_process() -> None:
    with locked(FOLDER):
        assert is_held(FOLDER)
        busy = pytest.raises(
            SearchBusyError, match=f"^cells is being run by process {os.getpid()} on "
        )
        with busy, locked(FOLDER):
            pass
        assert is_held(FOLDER)
    assert not is_held(FOLDER)
    assert not (FOLDER / "driver.json").exists()


def test_asking_whether_a_folder_is_locked_does_not_keep_a_driver_from_starting() -> None:
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            is_held(FOLDER)

    readers = [threading.Thread(target=ask) for _ in range(2)]
    with locked(FOLDER):
        pass
    for reader in readers:
        reader.start()
    try:
        for _ in range(20):
            with locked(FOLDER):
                assert is_held(FOLDER)
    finally:
        done.set()
        for reader in readers:
            reader.join()


def test_another_process_that_asks_does_not_count_as_a_driver() -> None:
    with locked(FOLDER):
        pass
    with (FOLDER / "driver.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_held(FOLDER)


@pytest.mark.parametrize("content", ["", '{"pid": 1', "[]", "{}"])
def test_a_damaged_holder_file_is_no_traceback(
    content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0)
    with locked(FOLDER):
        (FOLDER / "driver.json").write_text(content)
        busy = pytest.raises(
            SearchBusyError, match=r"^cells is being run by process \? on \? since \?$"
        )
        with busy, locked(FOLDER):
            pass


def test_a_holder_file_is_never_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def half(file: Path, text: str) -> int:
        write(file, text[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt), locked(FOLDER):
        pass
    assert not (FOLDER / "driver.json").exists()
    assert not is_held(FOLDER)


def test_a_folder_is_unlocked_after_an_error() -> None:
    with pytest.raises(KeyError), locked(FOLDER):
        raise KeyError
    with locked(FOLDER):
        pass


DIE_HOLDING = """
import os, sys
from pathlib import Path
from search.study.lock import locked
with locked(Path(sys.argv[1])):
    os._exit(7)
"""


def test_a_killed_driver_leaves_no_lock() -> None:
    line = [sys.executable, "-c", DIE_HOLDING, str(FOLDER)]
    assert subprocess.run(line, check=False).returncode == 7
    assert (FOLDER / "driver.json").is_file()
    assert not is_held(FOLDER)
    with locked(FOLDER):
        pass


def test_asking_creates_no_folder() -> None:
    assert not is_held(FOLDER)
    assert not FOLDER.exists()


def test_a_folder_that_cannot_be_made_is_bad_input() -> None:
    Path("file").touch()
    with pytest.raises(InputError) as raised, locked(Path("file") / "search"):
        pass
    assert raised.value.errors == ["storage: file/search cannot be made (Not a directory)"]
