"""Every picture decoded once, on all cores, and what was seen remembered by its content."""

import hashlib
import io
import json
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import PIL
from PIL import Image

from ..pixels import DEEP, FORMATS, NotFinite, is_transparent, orientation, to_rgb, turn_upright

MEMORY = "pictures.sqlite"
VERSION = f"2 {PIL.__version__}"
"""What another version saw is not remembered."""
AT_ONCE = 400
"""Rows in one question to SQLite, which takes 999 values at least."""


@dataclass(frozen=True)
class Seen:
    """One picture file as it is."""

    sha256: str
    width: int = 0
    """As seen, upright."""
    height: int = 0
    orientation: int = 1
    """EXIF's, by which it is turned upright."""
    format: str = ""
    """Pillow's name of what the content is."""
    pixels: tuple[str, ...] = ()
    """Codes of findings about pixels that are converted."""
    problem: str = ""
    """Code of the finding because of which it cannot be used."""
    detail: str = ""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as seen."""
        return self.width, self.height

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height before EXIF turns it."""
        turned = self.orientation >= 5  # orientations 5 to 8 lie on their side
        return (self.height, self.width) if turned else (self.width, self.height)


def see(files: list[Path], cache: Path, step: Callable[[int], None] = lambda _: None) -> list[Seen]:
    """Decode every file that was not decoded before; `step` is told how many more are done."""
    stats = [_identity(file) for file in files]
    memory, known = _open_memory(cache / MEMORY, stats)
    with closing(memory):
        new = [i for i, stat in enumerate(stats) if stat not in known]
        step(len(files) - len(new))
        one_at_a_time = Lock()

        def read(i: int) -> Seen:
            try:
                content = files[i].read_bytes()
            except OSError as error:
                return Seen("", problem="picture-unreadable", detail=_reason(error))
            sha256 = hashlib.sha256(content).hexdigest()
            with one_at_a_time:
                before = _recall_content(memory, sha256)
            return before or decode(content, sha256)

        found: dict[int, Seen] = {}
        with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            warnings.simplefilter("ignore")  # Pillow's, of files that are told as findings here
            for i, seen in zip(new, pool.map(read, new), strict=True):
                found[i] = seen
                step(1)
        # what could not be read at all may be readable the next time
        rows = [(stats[i], seen) for i, seen in found.items() if seen.sha256]
        _remember(memory, rows, cache / MEMORY)
    return [found[i] if i in found else known[stats[i]] for i in range(len(files))]


def decode(content: bytes, sha256: str) -> Seen:
    """All that there is to know of a picture file; never raises for what the file holds."""
    if not content:
        return Seen(sha256, problem="picture-empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if picture.format == "PNG":
                picture.verify()  # its checksums, which decoding skips
                picture = Image.open(io.BytesIO(content), formats=FORMATS)
            return _decode(picture, sha256)
    except Image.DecompressionBombError as error:
        return Seen(sha256, problem="picture-huge", detail=str(error))
    except NotFinite:
        return Seen(sha256, problem="pixels-not-finite")
    except Exception as error:  # a broken file makes Pillow raise almost anything
        truncated = "truncated" in str(error).lower()
        problem = "picture-truncated" if truncated else "picture-unreadable"
        return Seen(sha256, problem=problem, detail=_reason(error))


def _decode(picture: Image.Image, sha256: str) -> Seen:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # from there on Pillow itself refuses
    if limit and picture.width * picture.height > limit:
        size = f"{picture.width} x {picture.height} pixels, at most {limit} in all"
        return Seen(sha256, problem="picture-huge", detail=size)
    facts = {
        "orientation": orientation(picture),  # which is gone from some once they are decoded
        "format": picture.format or "",
        "pixels": _pixels(picture),
    }
    is_plain = picture.mode in {"RGB", "L", "YCbCr"}
    upright = turn_upright(picture) if is_plain else to_rgb(picture)
    return Seen(sha256, upright.width, upright.height, **facts)  # type: ignore[arg-type]


def _pixels(picture: Image.Image) -> tuple[str, ...]:
    holds = {
        "pixels-grey": picture.mode in {"L", "1", "P"},
        "pixels-deep": picture.mode in DEEP,
        "pixels-transparent": is_transparent(picture),
        "pixels-cmyk": picture.mode == "CMYK",
        "pixels-frames": getattr(picture, "n_frames", 1) > 1,
    }
    return tuple(code for code, is_so in holds.items() if is_so)


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return "is no picture" if "cannot identify" in text else text or type(error).__name__


# -- what is remembered ---------------------------------------------------------------------------


def _identity(file: Path) -> str:
    """Of a file that was not written since: as git tells it, without reading."""
    stat = os.stat(file)
    name = os.fsencode(file)  # may be no text at all
    return f"{name!r} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _open_memory(file: Path, identities: list[str]) -> tuple[sqlite3.Connection, dict[str, Seen]]:
    """The file of what was seen, and what it holds of these; a damaged one is made anew, and one in
    memory stands in where it cannot be read or written."""
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


def _open(place: Path | str, identities: list[str]) -> tuple[sqlite3.Connection, dict[str, Seen]]:
    memory = sqlite3.connect(place, timeout=30, check_same_thread=False)
    try:
        _make_tables(memory)
        return memory, _recall(memory, identities)
    except sqlite3.Error:
        memory.close()
        raise


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, or of another make; not a disk or who holds the file."""
    # bytes that are no text have no code
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    # else SQLite rolls the new file back to what the old one was
    file.with_name(f"{file.name}-journal").unlink(missing_ok=True)


def _make_tables(memory: sqlite3.Connection) -> None:
    memory.execute("create table if not exists files (identity text primary key, sha256 text)")
    memory.execute(
        "create table if not exists pictures "
        "(sha256 text, version text, seen text, primary key (sha256, version))"
    )


def _recall(memory: sqlite3.Connection, identities: list[str]) -> dict[str, Seen]:
    found: dict[str, Seen] = {}
    for start in range(0, len(identities), AT_ONCE):
        some = identities[start : start + AT_ONCE]
        rows = memory.execute(
            "select identity, seen from files join pictures using (sha256) "
            f"where version = ? and identity in ({', '.join('?' * len(some))})",
            [VERSION, *some],
        )
        found |= {identity: seen for identity, text in rows if (seen := _from_text(text))}
    return found


def _recall_content(memory: sqlite3.Connection, sha256: str) -> Seen | None:
    question = "select seen from pictures where sha256 = ? and version = ?"
    with suppress(sqlite3.Error):
        row = memory.execute(question, [sha256, VERSION]).fetchone()
        return _from_text(row[0]) if row else None
    return None


def _from_text(text: Any) -> Seen | None:
    """None where it is not what was written."""
    with suppress(ValueError, TypeError, KeyError):
        raw = json.loads(text)
        return Seen(**{**raw, "pixels": tuple(raw["pixels"])})
    return None


def _remember(memory: sqlite3.Connection, rows: Iterable[tuple[str, Seen]], file: Path) -> None:
    try:
        with memory:
            for identity, seen in rows:
                memory.execute("replace into files values (?, ?)", [identity, seen.sha256])
                memory.execute(
                    "replace into pictures values (?, ?, ?)",
                    [seen.sha256, VERSION, json.dumps(asdict(seen))],
                )
    except sqlite3.Error as error:  # the next check decodes again
        if _is_damage(error):
            with suppress(OSError):
                _remove(file)
