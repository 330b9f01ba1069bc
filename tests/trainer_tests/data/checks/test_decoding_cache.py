"""Facts of pictures are kept by identity and content, whatever happens to their file."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from shutil import copy

import pytest
from PIL import Image

from trainer.data.checks import decoding
from trainer.data.checks.decoding import inspect
from trainer.data.checks.decoding_cache import FILE, PictureFacts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("L", (20, 10)).save(tmp_path / "a.png", exif=exif)
    return tmp_path / "a.png"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were decoded."""
    result: list[str] = []
    decode = decoding.decode

    def counting(content: bytes, sha256: str) -> PictureFacts:
        result.append(sha256)
        return decode(content, sha256)

    monkeypatch.setattr(decoding, "decode", counting)
    return result


def test_a_second_look_decodes_nothing(file: Path, tmp_path: Path, decoded: list[str]) -> None:
    first = inspect([file], tmp_path / "cache")
    assert inspect([file], tmp_path / "cache") == first
    copy(file, tmp_path / "b.png")  # known by content
    assert inspect([file, tmp_path / "b.png"], tmp_path / "cache") == first * 2
    assert len(decoded) == 1


def test_a_memory_that_fails_is_done_without(file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert inspect([file], tmp_path / "cache")[0].width == 10
    (tmp_path / "other" / FILE).mkdir(parents=True)
    assert inspect([file], tmp_path / "other")[0].width == 10


def no_database(memory: Path) -> None:
    memory.write_bytes(b"no database, but long enough to be looked at" * 9)


def cut_short(memory: Path) -> None:
    memory.write_bytes(memory.read_bytes()[:6000])


def zeros_inside(memory: Path) -> None:
    """Its head and first page stay: it opens, and fails where it is read."""
    content = memory.read_bytes()
    memory.write_bytes(content[:4096] + bytes(len(content) - 4096))


def other_columns(memory: Path) -> None:
    with sqlite3.connect(memory) as each:
        each.execute("drop table pictures")
        each.execute("create table pictures (id integer primary key, content blob)")


def no_text(memory: Path) -> None:
    with sqlite3.connect(memory) as each:
        each.execute("update pictures set seen = cast(x'ff00fe' as text)")


@pytest.mark.parametrize("damage", [no_database, cut_short, zeros_inside, other_columns, no_text])
def test_a_damaged_memory_is_made_anew(
    file: Path, tmp_path: Path, decoded: list[str], damage: Callable[[Path], None]
) -> None:
    before = inspect([file], tmp_path / "cache")
    damage(tmp_path / "cache" / FILE)
    for _ in range(2):
        assert inspect([file], tmp_path / "cache") == before
    assert len(decoded) == 2  # at first, and after the damage; then it is remembered again


@pytest.mark.parametrize("seen", ["{", "[]", "3", '{"width": 1}', '{"pixels": [], "colour": 1}'])
def test_a_row_that_is_not_what_was_written_is_looked_at_again(
    file: Path, tmp_path: Path, decoded: list[str], seen: str
) -> None:
    before = inspect([file], tmp_path / "cache")
    with sqlite3.connect(tmp_path / "cache" / FILE) as memory:
        memory.execute("update pictures set seen = ?", [seen])
    for _ in range(2):
        assert inspect([file], tmp_path / "cache") == before
    assert len(decoded) == 2


def test_damage_where_it_is_only_written_is_repaired_the_next_time(
    file: Path, tmp_path: Path, decoded: list[str]
) -> None:
    inspect([file], tmp_path / "cache")
    with sqlite3.connect(tmp_path / "cache" / FILE) as memory:
        memory.execute("drop table files")
        memory.execute("create table files (identity text, sha256 text, more text)")
    copy(file, tmp_path / "b.png")
    with (tmp_path / "b.png").open("ab") as stream:
        stream.write(b"another")
    for _ in range(3):
        inspect([tmp_path / "b.png"], tmp_path / "cache")
    assert len(decoded) == 3


def test_a_memory_that_another_holds_is_left_to_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect([file], tmp_path / "cache")
    before = (tmp_path / "cache" / FILE).read_bytes()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k | {"timeout": 0}))
    with closing(connect(tmp_path / "cache" / FILE, isolation_level=None)) as other:
        other.execute("begin exclusive")
        assert inspect([file], tmp_path / "cache")[0].width == 10
    assert (tmp_path / "cache" / FILE).read_bytes() == before


def test_the_memory_is_one_table_a_purpose(file: Path, tmp_path: Path) -> None:
    inspect([file], tmp_path / "cache")
    with sqlite3.connect(tmp_path / "cache" / FILE) as memory:
        assert memory.execute("select count(*) from files").fetchone() == (1,)
        assert memory.execute("select count(*) from pictures").fetchone() == (1,)


def test_a_name_that_is_no_text_is_read_and_remembered(
    file: Path, tmp_path: Path, decoded: list[str]
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    file.rename(odd)
    for _ in range(2):
        (seen,) = inspect([odd], tmp_path / "cache")
        assert not seen.problem
    assert len(decoded) == 1
