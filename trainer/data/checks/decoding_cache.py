"""What was decoded of each picture, kept in an SQLite file so that no picture is decoded twice."""

import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL

FILE = "pictures.sqlite"
VERSION = f"2 {PIL.__version__}"
"""Facts that another version decoded are not used."""
AT_ONCE = 400
"""Rows of one query: SQLite takes at least 999 values."""


@dataclass(frozen=True)
class PictureFacts:
    """What decoding tells about one picture file."""

    sha256: str
    width: int = 0
    """Of the upright picture."""
    height: int = 0
    orientation: int = 1
    """EXIF's: how the picture is rotated to be upright."""
    format: str = ""
    """Pillow's name of the content's format."""
    pixels: tuple[str, ...] = ()
    """Codes of findings about pixels that are converted."""
    problem: str = ""
    """Code of the finding that makes it unusable."""
    detail: str = ""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as seen."""
        return self.width, self.height

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height before EXIF rotates it."""
        on_side = self.orientation >= 5  # orientations 5 to 8
        return (self.height, self.width) if on_side else (self.width, self.height)


def identity(file: Path) -> str:
    """Identity of a file that was not written since, as git has it: without reading it."""
    stat = file.stat()
    name = os.fsencode(file)  # may be no text
    return f"{name!r} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


class DecodingCache:
    """The facts of pictures, by the identity of their file and by their content.

    A damaged file is made anew. If it cannot be read or written, a database in memory stands in.
    """

    def __init__(self, file: Path, identities: list[str]) -> None:
        self._file = file
        self._connection, self.known = _open_or_repair(file, identities)
        """`known` are the facts for these identities."""

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def of_content(self, sha256: str) -> PictureFacts | None:
        """The facts of a picture with this content, None if there are none."""
        query = "select seen from pictures where sha256 = ? and version = ?"
        with suppress(sqlite3.Error):
            row = self._connection.execute(query, [sha256, VERSION]).fetchone()
            return _from_text(row[0]) if row else None
        return None

    def add(self, rows: Iterable[tuple[str, PictureFacts]]) -> None:
        """Keep facts by identity and by content."""
        try:
            with self._connection as connection:
                for file_identity, facts in rows:
                    values = [file_identity, facts.sha256]
                    connection.execute("replace into files values (?, ?)", values)
                    connection.execute(
                        "replace into pictures values (?, ?, ?)",
                        [facts.sha256, VERSION, json.dumps(asdict(facts))],
                    )
        except sqlite3.Error as error:  # the next check decodes them again
            if _is_damage(error):
                with suppress(OSError):
                    _remove(self._file)


_Opened = tuple[sqlite3.Connection, dict[str, PictureFacts]]


def _open_or_repair(file: Path, identities: list[str]) -> _Opened:
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                return _open(file, identities)
            except sqlite3.Error as error:
                if not _is_damage(error):
                    break
                _remove(file)
    return _open(":memory:", identities)


def _open(place: Path | str, identities: list[str]) -> _Opened:
    connection = sqlite3.connect(place, timeout=30, check_same_thread=False)
    try:
        _make_tables(connection)
        return connection, _read(connection, identities)
    except sqlite3.Error:
        connection.close()
        raise


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is damaged or has other tables, rather than a disk or lock that fails."""
    # bytes that are no text have no code
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    # else SQLite rolls the new file back to the old one
    file.with_name(f"{file.name}-journal").unlink(missing_ok=True)


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("create table if not exists files (identity text primary key, sha256 text)")
    connection.execute(
        "create table if not exists pictures "
        "(sha256 text, version text, seen text, primary key (sha256, version))"
    )


def _read(connection: sqlite3.Connection, identities: list[str]) -> dict[str, PictureFacts]:
    known: dict[str, PictureFacts] = {}
    for start in range(0, len(identities), AT_ONCE):
        some = identities[start : start + AT_ONCE]
        rows = connection.execute(
            "select identity, seen from files join pictures using (sha256) "
            f"where version = ? and identity in ({', '.join('?' * len(some))})",
            [VERSION, *some],
        )
        known |= {name: facts for name, text in rows if (facts := _from_text(text))}
    return known


def _from_text(text: Any) -> PictureFacts | None:
    """The facts in a row, None if they cannot be read."""
    with suppress(ValueError, TypeError, KeyError):
        raw = json.loads(text)
        return PictureFacts(**{**raw, "pixels": tuple(raw["pixels"])})
    return None
