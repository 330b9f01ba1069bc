"""Pictures are decoded once, and what was seen is remembered by content."""

import os
import sqlite3
from pathlib import Path
from shutil import copy

import pytest
from PIL import Image

from trainer.data import pictures
from trainer.data.pictures import MEMORY, Seen, see


@pytest.fixture
def file(tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("L", (20, 10)).save(tmp_path / "a.png", exif=exif)
    return tmp_path / "a.png"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were decoded."""
    found: list[str] = []
    decode = pictures.decode

    def counting(content: bytes, sha256: str) -> Seen:
        found.append(sha256)
        return decode(content, sha256)

    monkeypatch.setattr(pictures, "decode", counting)
    return found


def test_what_is_seen(file: Path, tmp_path: Path) -> None:
    (seen,) = see([file], tmp_path / "cache")
    assert (seen.width, seen.height, seen.upright) == (20, 10, (10, 20))
    assert (seen.format, seen.orientation, seen.pixels) == ("PNG", 8, ("pixels-grey",))


def test_a_second_look_decodes_nothing(file: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = see([file], tmp_path / "cache")
    assert see([file], tmp_path / "cache") == first
    copy(file, tmp_path / "b.png")  # known by content
    assert see([file, tmp_path / "b.png"], tmp_path / "cache") == first * 2
    assert len(decoded) == 1


def test_a_file_that_changed_is_looked_at_again(
    file: Path, tmp_path: Path, decoded: list[str]
) -> None:
    before = see([file], tmp_path / "cache")
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a careless copy would
    assert see([file], tmp_path / "cache") != before
    assert len(decoded) == 2


def test_progress_counts_every_picture(file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        told: list[int] = []
        see([file, file], tmp_path / "cache", told.append)
        assert sum(told) == 2


@pytest.mark.parametrize("broken", [True, False])
def test_a_memory_that_fails_is_done_without(file: Path, tmp_path: Path, broken: bool) -> None:
    cache = tmp_path / "cache"
    if broken:
        cache.mkdir()
        (cache / MEMORY).write_bytes(b"no database, but long enough to be looked at" * 9)
    else:
        cache.write_text("no folder")
    assert see([file], cache)[0].width == 20


def test_the_memory_is_one_table_a_purpose(file: Path, tmp_path: Path) -> None:
    see([file], tmp_path / "cache")
    with sqlite3.connect(tmp_path / "cache" / MEMORY) as memory:
        assert memory.execute("select count(*) from files").fetchone() == (1,)
        assert memory.execute("select count(*) from pictures").fetchone() == (1,)


def test_what_cannot_be_read_is_told_and_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "a.png"
    place.mkdir()  # nobody can read it as a file, root neither
    for _ in range(2):
        (seen,) = see([place], tmp_path / "cache")
        assert seen.problem == "picture-unreadable" and "directory" in seen.detail


def test_a_name_that_is_no_text_is_read_and_remembered(
    file: Path, tmp_path: Path, decoded: list[str]
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    file.rename(odd)
    for _ in range(2):
        (seen,) = see([odd], tmp_path / "cache")
        assert not seen.problem
    assert len(decoded) == 1
