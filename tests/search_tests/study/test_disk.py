"""A full disk, and what killed workers leave on it."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from search.study.disk import is_full, sweep

Make = Callable[..., Any]


def test_half_written_files_of_a_killed_worker_are_deleted(make_search: Make) -> None:
    folder = make_search().folder
    trial, phase = folder / "trials" / "0", folder / "phases" / ".key.host.7"
    for place in (trial, phase):
        place.mkdir(parents=True)
    for file in (trial / ".last.pt.123", trial / "last.pt", phase / "last.pt"):
        file.touch()
    sweep(folder)
    assert [f.name for f in folder.rglob("*") if f.is_file()] == ["last.pt"]
    assert not phase.exists()


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (ValueError(), False),
    ],
)
def test_a_full_disk_is_known_by_its_number(error: Exception, full: bool) -> None:
    assert is_full(error) is full
