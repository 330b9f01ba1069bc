"""A split by content: no order, place or newcomer changes a picture's side."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from trainer.data.dataset import Picture, Split
from trainer.data.split import split_off

MakePicture = Callable[..., Picture]
MakeSplit = Callable[..., Split]


@pytest.fixture(scope="module")
def whole(make_picture: MakePicture, make_split: MakeSplit) -> Split:
    return make_split(*(make_picture(i) for i in range(200)))


def ids(split: Split) -> set[int]:
    return {picture.id for picture in split.pictures}


def test_every_picture_is_on_one_side(whole: Split) -> None:
    train, val = split_off(whole, "val", 0.2)
    assert ids(train) | ids(val) == ids(whole)
    assert not ids(train) & ids(val)
    assert (train.name, val.name) == ("train", "val")
    assert train.categories == val.categories == whole.categories


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_about_the_fraction_goes(whole: Split, fraction: float) -> None:
    assert len(split_off(whole, "val", fraction)[1].pictures) / 200 == pytest.approx(
        fraction, abs=0.08
    )


def test_the_order_does_not_matter(whole: Split) -> None:
    turned = replace(whole, pictures=whole.pictures[::-1])
    assert ids(split_off(turned, "val", 0.2)[1]) == ids(split_off(whole, "val", 0.2)[1])


def test_a_picture_added_later_moves_no_other(whole: Split) -> None:
    early = replace(whole, pictures=whole.pictures[:150])
    before, after = split_off(early, "val", 0.2), split_off(whole, "val", 0.2)
    assert ids(before[0]) <= ids(after[0])
    assert ids(before[1]) <= ids(after[1])


def test_equal_files_stay_on_one_side(whole: Split, make_split: MakeSplit) -> None:
    twins = [replace(picture, id=picture.id + 1000) for picture in whole.pictures]
    train, val = split_off(make_split(*whole.pictures, *twins), "val", 0.3)
    for side in (train, val):
        assert {i % 1000 for i in ids(side)} == {i for i in ids(side) if i < 1000}


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_a_few_pictures_leave_at_least_one_a_side(
    make_picture: MakePicture, make_split: MakeSplit, count: int, fraction: float
) -> None:
    for first in range(0, 100, count):
        pictures = (make_picture(first + i) for i in range(count))
        train, val = split_off(make_split(*pictures), "val", fraction)
        assert train.pictures and val.pictures
