"""One driver a search."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.lock import Busy, is_held, locked
from trainer.config import BadInput

FOLDER = Path("searches/cells")


def test_a_held_folder_is_busy_and_says_with_whom() -> None:
    with locked(FOLDER):
        assert is_held(FOLDER)
        with pytest.raises(Busy, match=f"^cells is being run by process {os.getpid()} on "):
            with locked(FOLDER):
                pass
        assert is_held(FOLDER)
    assert not is_held(FOLDER)
    assert not (FOLDER / "driver.json").exists()


def test_it_is_free_again_after_an_error() -> None:
    with pytest.raises(KeyError), locked(FOLDER):
        raise KeyError
    with locked(FOLDER):
        pass


DIE_HOLDING = """
import os, sys
from pathlib import Path
from search.lock import locked
with locked(Path(sys.argv[1])):
    os._exit(7)
"""


def test_a_killed_driver_holds_nothing() -> None:
    line = [sys.executable, "-c", DIE_HOLDING, str(FOLDER)]
    assert subprocess.run(line, check=False).returncode == 7
    assert (FOLDER / "driver.json").is_file()
    assert not is_held(FOLDER)
    with locked(FOLDER):
        pass


def test_asking_makes_nothing() -> None:
    assert not is_held(FOLDER)
    assert not FOLDER.exists()


def test_a_place_that_can_be_no_folder_is_bad_input() -> None:
    Path("file").touch()
    with pytest.raises(BadInput) as told, locked(Path("file") / "search"):
        pass
    assert told.value.errors == ["storage: file/search cannot be made (Not a directory)"]
