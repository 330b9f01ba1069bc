"""What lies in a folder, by its path as written."""

from pathlib import Path

import pytest

from trainer.data.formats.folders import files_below, is_below, leads_out


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in files_below(folder))


def write(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_what_begins_with_a_dot_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "set"  # where the set lies has no say
    for name in ("a.jpg", "b/c.jpg", "._a.jpg", ".ipynb_checkpoints/a.jpg", "b/.hidden/d.jpg"):
        write(folder / name)
    assert names(folder) == ["a.jpg", "b/c.jpg"]


def test_links_to_folders_are_gone_into_once_and_never_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set")
    write(tmp_path / "set" / "b.jpg")
    for name, target in (("one", "../elsewhere"), ("two", "../elsewhere"), ("self", ".")):
        (tmp_path / "set" / name).symlink_to(target)
    (tmp_path / "set" / "nowhere").symlink_to("gone")
    result = names(tmp_path / "set")
    assert result in (["b.jpg", "nowhere", f"{link}/a.jpg"] for link in ("one", "two"))


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a.jpg", False),
        ("b/a..jpg", False),
        ("/a.jpg", True),
        ("b/../../a.jpg", True),
        ("..\\a.jpg", True),
        ("http://b/a.jpg", True),
        ("a\0.jpg", True),
    ],
)
def test_names_that_lead_out(name: str, out: bool) -> None:
    assert leads_out(name) is out


def test_a_path_is_below_a_folder_as_it_is_written() -> None:
    assert is_below(Path("/a/b/c"), Path("/a/b"))
    assert is_below(Path("/a/x/../b/c"), Path("/a/b/."))
    assert is_below(Path("/a"), Path("/"))
    assert not is_below(Path("/a/bc"), Path("/a/b"))
    assert not is_below(Path("/a/b/../c"), Path("/a/b"))
