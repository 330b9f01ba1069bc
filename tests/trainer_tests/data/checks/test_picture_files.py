"""Which file each listed picture is."""

import unicodedata
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from trainer.config import Data
from trainer.data.checks.examine import examine

from ..small_sets import CACHE, coco, draw, write
from ..spoilt_sets import (
    E3,
    Coco,
    Spoil,
    check_error,
    codes,
    edit,
    examined,
    with_a_link,
    with_image,
)


def test_two_pictures_of_one_name_are_reported_unless_they_are_equal(tmp_path: Path) -> None:
    write(tmp_path / "train.json", coco(["a.png"]))
    data = Data(train=tmp_path / "train.json", val_fraction=0.5)
    draw(tmp_path, "a.png")
    copytree(tmp_path, tmp_path / "images")
    assert "place-ambiguous" not in {f.code for f in examine(data, CACHE).errors}
    with (tmp_path / "images" / "a.png").open("ab") as file:
        file.write(b"another")
    (finding,) = (f for f in examine(data, CACHE).errors if f.code == "place-ambiguous")
    assert "images/a.png" in finding.line
    one = data.model_copy(update={"images": tmp_path / "images"})
    assert "place-ambiguous" not in {f.code for f in examine(one, CACHE).errors}


ERRORS: list[tuple[str, str, Spoil, dict[str, Any]]] = [
    ("B1", "picture-missing", lambda p: (p / "images/train-3.png").unlink(), E3),
    ("B41 absolute", "path-outside", with_image(file_name="/etc/hostname"), {"image": 3}),
    ("B41 above", "path-outside", with_image(file_name="../train.json"), {"image": 3}),
    ("B41 URL", "path-outside", with_image(file_name="https://example.org/a.png"), {"image": 3}),
    ("B41 link", "link-outside", with_a_link, E3),
]


@pytest.mark.parametrize(
    ("code", "spoil", "at"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS]
)
def test_an_error_is_reported_with_its_place(
    place: Path, code: str, spoil: Spoil, at: dict[str, Any]
) -> None:
    check_error(place, code, spoil, at)


@pytest.mark.parametrize("name", ["TRAIN-3.PNG", "images\\train-3.png", "images/train-3.png"])
def test_a_missing_picture_is_reported_with_a_file_of_its_name(place: Path, name: str) -> None:
    with_image(file_name=name)(place)
    finding = next(f for f in examined(place).findings if f.code == "picture-missing")
    assert finding.places[0].detail == "there is train-3.png"


@pytest.mark.parametrize(
    ("where", "detail"),
    [("photographs", "there is photographs/train-0.png"), ("../photographs", "no train-0.png in ")],
)
def test_without_any_picture_their_folder_is_asked_for(
    place: Path, where: str, detail: str
) -> None:
    (place / "images").rename(place / where)
    errors = examined(place).errors
    assert {error.code for error in errors} == {"pictures-elsewhere"}
    assert errors[0].places[0].detail.startswith(detail)
    assert "data.images" in errors[0].line


def test_if_every_picture_has_another_name_each_is_reported(place: Path) -> None:
    def rename(content: Coco) -> None:
        for image in content["images"]:
            image["file_name"] = image["file_name"].upper()

    edit(rename)(place)
    assert set(codes(examined(place))) == {"picture-missing"}


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("images\\", "picture-missing"),
        ("../../media/upload/4/", "path-outside"),
        ("..\\..\\media\\", "path-outside"),
        ("C:\\data\\", "path-outside"),
        ("/home/me/", "path-outside"),
        ("https://example.org/b/", "path-outside"),
    ],
)
def test_names_of_another_machine_get_one_hint_and_no_silent_match(
    place: Path, before: str, code: str
) -> None:
    edit(lambda c: [i.update(file_name=before + i["file_name"]) for i in c["images"]])(place)
    (finding,) = examined(place).errors
    where = f"the last parts of these names are in {place / 'images'}/: write them relative to it"
    assert (finding.code, finding.count) == (code, 12)
    assert finding.hint == f"{where}, as 'train-0.png'"


def test_names_with_percent_signs_get_the_hint_too(place: Path) -> None:
    (place / "images" / "train-3.png").rename(place / "images" / "train 3.png")
    with_image(file_name="train%203.png")(place)
    (finding,) = examined(place).errors
    assert finding.code == "picture-missing"
    assert finding.hint.endswith("relative to it, as 'train 3.png'")


@pytest.mark.parametrize(("stored", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_is_its_text_however_that_is_composed(place: Path, stored: Any, listed: Any) -> None:
    names = [unicodedata.normalize(form, "Größe é.png") for form in (stored, listed)]
    (place / "images" / "train-3.png").rename(place / "images" / names[0])
    with_image(file_name=names[1])(place)
    assert codes(examined(place)) == []
    edit(lambda c: c["images"][4].update(file_name=names[0]))(place)
    assert codes(examined(place)) == ["file-twice"]


def test_a_link_of_another_spelling_still_leads_out(place: Path) -> None:
    with_a_link(place)
    (place / "images" / "train-3.png").rename(place / "images" / "e\u0301.png")
    with_image(file_name="\u00e9.png")(place)
    assert codes(examined(place)) == ["link-outside"]
