"""Names that lead nowhere as they are written, and those that are no part of a data set."""

from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from trainer.data.formats.file_names import Listing, visible
from trainer.data.formats.folders import leads_out

NAME = "Übergröße é 각.png"


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_what_begins_with_a_dot_is_hidden_below_a_folder_that_may_itself(tmp_path: Path) -> None:
    place = touched(tmp_path / ".data", "b.png", "a.png", "._a.png", ".ipynb_checkpoints/a.png")
    assert [file.name for file in visible(place.rglob("*.png"), place)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "name",
    [
        "/a.png",
        "\\a.png",
        "C:\\data\\a.png",
        "d:/a.png",
        "../a.png",
        "x\\..\\a.png",
        "s3://b/a.png",
    ],
)
def test_a_name_that_leads_out(name: str) -> None:
    assert leads_out(name)


@pytest.mark.parametrize("name", ["a.png", "x/a.png", "images\\a.png", "a..b.png", "a:b.png"])
def test_a_name_that_stays_within(name: str) -> None:
    assert not leads_out(name)


@pytest.mark.parametrize(("stored", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_may_be_composed_otherwise(tmp_path: Path, stored: Any, asked: Any) -> None:
    stored, asked = (normalize(form, f"naïve/{NAME}") for form in (stored, asked))
    listing = Listing([tmp_path / "empty", touched(tmp_path, stored)])
    assert listing.spelt_otherwise(asked) == f"{tmp_path}/{stored}"


def test_of_several_spellings_none_is_taken(tmp_path: Path) -> None:
    # an o with a dot below and a hook above, in either order and as one letter
    names = ("o\u0323\u0302.png", "o\u0302\u0323.png", "\u1ed9.png")
    listing = Listing([touched(tmp_path, *names[:2])])
    assert listing.spelt_otherwise(names[2]) is None


def test_another_case_is_no_other_spelling(tmp_path: Path) -> None:
    listing = Listing([touched(tmp_path, "É.png")])
    assert listing.spelt_otherwise("é.png") is None
    assert listing.near("é.png") == "É.png"


@pytest.mark.parametrize(
    "names",
    [
        ["images\\0.png", "images\\1 a.png"],
        ["C:\\data\\0.png", "C:\\data\\1 a.png"],
        ["..\\..\\media\\upload\\4\\0.png", "../../1 a.png"],
        ["https://example.org/b/0.png?sig=a/b", "https://example.org/b/1%20a.png#x"],
        ["/data/local-files/?d=photos%5C0.png", "/data/upload/1 a.png"],
        ["1%20a.png"],
    ],
)
def test_where_the_last_parts_of_names_are_is_said_once(tmp_path: Path, names: list[str]) -> None:
    listing = Listing([touched(tmp_path, "0.png", "1 a.png")])
    hint = listing.hint(names)
    assert f" are in {tmp_path}/: write them relative to it, as '" in hint
    assert hint.startswith("the last parts of ") and hint.count("png") == 1


def test_a_hint_counts_the_names_that_it_is_of(tmp_path: Path) -> None:
    listing = Listing([touched(tmp_path, "photos/0.png", "photos/1.png")])
    assert listing.hint(["x/0.png", "x/1.png", "x/2.png"]) == (
        f"the last parts of 2 of these 3 names are in {tmp_path}/photos: write them relative to "
        f"{tmp_path}, as 'photos/0.png'"
    )


def test_as_many_last_parts_as_agree_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    listing = Listing([touched(tmp_path, "cam1/0.png", "cam2/0.png")])
    assert listing.hint(["D:\\run\\cam2\\0.png"]).endswith("relative to it, as 'cam2/0.png'")
    assert listing.hint(["D:\\run\\0.png"]) == ""


def test_names_of_nothing_have_no_hint(tmp_path: Path) -> None:
    assert Listing([tmp_path / "gone", touched(tmp_path, "0.png")]).hint(["1.png", "", "/"]) == ""
