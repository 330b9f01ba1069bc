"""Full disks, and files that killed workers left half written."""

import errno
from pathlib import Path

import pytest

from search.study.disk import delete_partial_files, is_disk_full


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (ValueError(), False),
    ],
)
def test_the_error_of_a_full_disk_is_known_by_its_number(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full


def test_half_written_files_of_trials_and_phases_are_deleted(tmp_path: Path) -> None:
    trial, phase = tmp_path / "trials" / "0", tmp_path / "phases" / ".key.host.7"
    for folder in (trial, phase):
        folder.mkdir(parents=True)
    for file in (trial / ".last.pt.123", trial / "last.pt", phase / "last.pt"):
        file.touch()
    delete_partial_files(tmp_path)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["last.pt"]
    assert not phase.exists()
