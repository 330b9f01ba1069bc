"""Files of arrays: complete or absent, and verified before they are used."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.data import shared_arrays
from trainer.data.shared_arrays import key_of, locked, open_array, write_array

ROWS = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)


def write(folder: Path, rows: NDArray[np.uint8] = ROWS) -> Path:
    with write_array(folder, "key", len(rows)) as add:
        for row in rows:
            add(row)
    (file,) = folder.glob("key-*.npy")
    return file


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert open_array(tmp_path, "key") is None
    file = write(tmp_path)
    array = open_array(tmp_path, "key")
    assert array is not None and (array == ROWS).all()
    assert not array.flags.writeable
    assert key_of(file) == "key"
    assert open_array(tmp_path, "ke") is None


def test_a_process_verifies_a_file_once(tmp_path: Path) -> None:
    write(tmp_path)
    steps: list[int] = []
    for _ in range(2):
        open_array(tmp_path, "key", lambda: steps.append(1))
    assert len(steps) == len(ROWS)


def test_what_is_asked_for_was_used(tmp_path: Path) -> None:
    file = write(tmp_path)
    os.utime(file, (1, 1))
    open_array(tmp_path, "key")
    assert file.stat().st_mtime > 1


@pytest.mark.parametrize("size", [0, 5, -1])
def test_a_damaged_file_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    file = write(tmp_path)
    monkeypatch.setattr(shared_arrays, "_checked", set())
    content = file.read_bytes()
    file.write_bytes(content[:size] if size >= 0 else content[:-1] + b"?")
    assert open_array(tmp_path, "key") is None
    assert not file.exists()
    assert f"{file} is damaged" in caplog.text


def test_a_damaged_header_is_a_damaged_file(tmp_path: Path) -> None:
    for place, byte in ((40, b"("), (60, b"'"), (8, b"y"), (20, b"}")):
        file = write(tmp_path)
        content = file.read_bytes()
        file.write_bytes(content[:place] + byte + content[place + 1 :])
        assert open_array(tmp_path, "key") is None
        assert not file.exists()


def test_a_large_file_is_not_read_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    monkeypatch.setattr(shared_arrays, "CHECKED", 10)
    steps: list[int] = []
    assert open_array(tmp_path, "key", lambda: steps.append(1)) is not None and not steps
    os.truncate(file, file.stat().st_size - 1)
    assert open_array(tmp_path, "key") is None


def test_a_file_that_was_made_again_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"?")

    def make_again() -> None:
        (tmp_path / "new").write_bytes(good)
        (tmp_path / "new").rename(file)

    assert open_array(tmp_path, "key", make_again) is None
    assert file.read_bytes() == good


def test_a_file_with_too_few_rows_is_never_used(tmp_path: Path) -> None:
    with write_array(tmp_path, "key", 9) as add:
        add(ROWS[0])
    assert open_array(tmp_path, "key") is None


def test_an_error_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), write_array(tmp_path, "key", 4) as add:
        add(ROWS[0])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_who_waits_for_a_lock_shows_that_it_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_arrays, "WAIT", 0.05)
    held = threading.Event()
    steps: list[int] = []

    def hold() -> None:
        with locked(tmp_path / "lock", lambda: None):
            held.set()
            while len(steps) < 3:
                held.wait(0.01)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with locked(tmp_path / "lock", lambda: steps.append(1)):
        assert len(steps) >= 3
    other.join()
