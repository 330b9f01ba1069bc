"""Temporary folders: no other account reads or replaces what is in them."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from clusters.definitions import ClusterConnectionError
from clusters.private_folders import FALLBACKS, MAX_PATH_BYTES, is_safe, private_folder, staged

CLUSTERS = Path(__file__).parents[2] / "clusters"


def mode(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


def test_a_private_folder_is_this_accounts_alone_and_goes() -> None:
    with private_folder() as first, private_folder() as second:
        assert first != second
        assert mode(first) == 0o700 and first.stat().st_uid == os.geteuid()
    assert not first.exists() and not second.exists()


def test_code_for_workers_is_staged_in_one() -> None:
    with staged([CLUSTERS]) as folder:
        assert mode(folder) == 0o700 and is_safe(folder.parent)
        assert (folder / "clusters" / "local.py").is_file()


@pytest.mark.parametrize("name", ["x" * MAX_PATH_BYTES, "open"])
def test_a_long_or_an_open_tmpdir_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name).chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with private_folder() as folder:
        assert str(folder.parent) in FALLBACKS


def test_if_no_folder_is_safe_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusters.private_folders.is_safe", lambda _: False)
    with (
        pytest.raises(ClusterConnectionError, match="set TMPDIR to a folder of yours"),
        private_folder(),
    ):
        pass


@pytest.mark.parametrize(
    ("bits", "safe"), [(0o700, True), (0o755, True), (0o1777, True), (0o777, False), (0o770, False)]
)
def test_a_folder_is_safe_where_others_cannot_rename(tmp_path: Path, bits: int, safe: bool) -> None:
    place = tmp_path / "above" / "below"
    place.mkdir(parents=True)
    place.parent.chmod(bits)
    assert is_safe(place) is safe
    assert is_safe(place.parent) is safe
    (tmp_path / "link").symlink_to(place)
    assert is_safe(tmp_path / "link") is safe


def test_a_missing_folder_is_not_safe(tmp_path: Path) -> None:
    assert not is_safe(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_the_folder_of_another_account_is_not_safe(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    assert not is_safe(tmp_path)


def test_exactly_the_packages_are_staged_without_caches(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "a.pyc").write_bytes(b"")
    (package / "inner").mkdir()
    (package / "inner" / "a.py").write_text("A = 1\n")
    (tmp_path / "other.py").write_text("")
    with staged([package]) as folder:
        files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
        assert files == ["mine/inner/a.py"]
    assert not folder.exists()
