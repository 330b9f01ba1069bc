"""A data set is read and checked as one: counts, splits, notes and findings."""

from pathlib import Path

import pytest

from trainer.config import Data, InputError
from trainer.data.checks.examine import examine
from trainer.data.formats.layouts import find_layout

from ..spoilt_sets import codes, edit, examined, with_box


def test_a_sound_set_has_counts_classes_and_splits_but_no_findings(place: Path) -> None:
    result = examined(place)
    assert (result.format, result.findings, result.notes) == ("COCO", (), ())
    assert result.counts == {
        "train": {"pictures": 12, "boxes": 24},
        "val": {"pictures": 8, "boxes": 16},
    }
    assert [(c.id, c.name) for c in result.categories] == [(0, "red"), (90, "blue")]
    assert [len(split.pictures) for split in result.splits.values()] == [12, 8]


def test_what_has_errors_is_left_out_of_the_splits(place: Path) -> None:
    with_box(50, 2, 10, 10)(place)
    (place / "images" / "train-5.png").write_bytes(b"")
    pictures = examined(place).splits["train"].pictures
    assert [len(picture.boxes) for picture in pictures if picture.id == 3] == [1]
    assert len(pictures) == 11


def test_pictures_need_not_be_decoded(place: Path, tmp_path: Path) -> None:
    for file in (place / "images").iterdir():
        file.unlink()
    result = examine(find_layout(place), tmp_path, pictures=False)
    assert (result.findings, result.splits) == ((), {})


def test_each_picture_is_counted_once_while_they_are_decoded(place: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    examine(find_layout(place), tmp_path, step=lambda done, of: calls.append((done, of)))
    assert sum(done for done, _ in calls) == 20
    assert {of for _, of in calls} == {20}


def test_findings_are_sorted_by_split(place: Path) -> None:
    for split in ("val", "train"):
        edit(lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), split)(place)
    assert [f.split for f in examined(place).findings] == ["train", "val"]
    assert codes(examined(place)) == ["box-empty"] * 2


def test_all_warnings_are_one_note(data: Data, tmp_path: Path) -> None:
    (note,) = examine(data, tmp_path).notes
    assert note == ("data: warnings (2 class-rare, 2 split-small); `unfreeze check` says more")


def test_a_code_that_cannot_be_allowed_is_bad_input(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.allow: split-empty: cannot be allowed"):
        examine(data.model_copy(update={"allow": ["split-empty"]}), tmp_path)
