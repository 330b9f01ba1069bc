"""Pictures are decoded once, and what was seen is remembered by content."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.data.checks import decoding
from trainer.data.checks.decoding import inspect
from trainer.data.checks.decoding_cache import PictureFacts

from ..spoilt_sets import (
    E3,
    SIZE,
    Spoil,
    check_error,
    check_no_error,
    cut,
    huge,
    picture,
    saved,
    with_a_flipped_bit,
    with_file,
)


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


def test_what_is_seen(file: Path, tmp_path: Path) -> None:
    (seen,) = inspect([file], tmp_path / "cache")
    assert (seen.stored, seen.upright) == ((20, 10), (10, 20))
    assert (seen.format, seen.orientation, seen.pixels) == ("PNG", 8, ("pixels-grey",))


def test_a_file_that_changed_is_looked_at_again(
    file: Path, tmp_path: Path, decoded: list[str]
) -> None:
    before = inspect([file], tmp_path / "cache")
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a careless copy would
    assert inspect([file], tmp_path / "cache") != before
    assert len(decoded) == 2


def test_progress_counts_every_picture(file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        reported: list[int] = []
        inspect([file, file], tmp_path / "cache", reported.append)
        assert sum(reported) == 2


def test_what_cannot_be_read_is_reported_and_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "a.png"
    place.mkdir()  # nobody can read it as a file, root neither
    for _ in range(2):
        (seen,) = inspect([place], tmp_path / "cache")
        assert seen.problem == "picture-unreadable" and "directory" in seen.detail


ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
    ("B5", "picture-empty", with_file(b""), E3),
    ("B6", "picture-truncated", cut("JPEG"), E3),
    ("B6 PNG", "picture-truncated", cut("PNG"), E3),
    ("B7", "picture-unreadable", with_a_flipped_bit, E3),
    ("B7 html", "picture-unreadable", with_file(b"<html>not here</html>"), E3),
    ("B10", "picture-huge", with_file(huge()), E3),
    (
        "B14 NaN",
        "pixels-not-finite",
        saved(Image.fromarray(np.full(SIZE[::-1], np.nan, np.float32)), "TIFF"),
        E3,
    ),
]


WARNINGS_AND_NOTES: list[tuple[str, str, Spoil, str]] = [
    ("B13 L", "pixels-grey", saved(picture("b").convert("L")), "note"),
    ("B13 1", "pixels-grey", saved(picture("b").convert("1")), "note"),
    ("B13 P", "pixels-grey", saved(picture("b").convert("P")), "note"),
    ("B14", "pixels-deep", saved(Image.fromarray(np.full(SIZE[::-1], 999, np.uint16))), "warning"),
    (
        "B14 float",
        "pixels-deep",
        saved(Image.fromarray(np.full(SIZE[::-1], 0.5, np.float32)), "TIFF"),
        "warning",
    ),
    ("B15", "pixels-transparent", saved(picture("b").convert("RGBA")), "warning"),
    ("B15 LA", "pixels-transparent", saved(picture("b").convert("LA")), "warning"),
    ("B16", "pixels-cmyk", saved(picture("b").convert("CMYK"), "JPEG"), "warning"),
    (
        "B17 GIF",
        "pixels-frames",
        saved(picture("b"), "GIF", save_all=True, append_images=[picture("c")]),
        "warning",
    ),
    (
        "B17 TIFF",
        "pixels-frames",
        saved(picture("b"), "TIFF", save_all=True, append_images=[picture("c")]),
        "warning",
    ),
    (
        "B17 MPO",
        "pixels-frames",
        saved(picture("b"), "MPO", save_all=True, append_images=[picture("c")]),
        "warning",
    ),
]


@pytest.mark.parametrize(
    ("code", "spoil", "at"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS]
)
def test_an_error_is_reported_with_its_place(
    place: Path, code: str, spoil: Spoil, at: dict[str, Any]
) -> None:
    check_error(place, code, spoil, at)


@pytest.mark.parametrize(
    ("code", "spoil", "severity"),
    [r[1:] for r in WARNINGS_AND_NOTES],
    ids=[r[0] for r in WARNINGS_AND_NOTES],
)
def test_a_warning_or_note_is_no_error(place: Path, code: str, spoil: Spoil, severity: str) -> None:
    check_no_error(place, code, spoil, severity)
