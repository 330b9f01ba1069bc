"""Splits made by content: stratified, and the same wherever they are made."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from trainer.config import InputError
from trainer.data.dataset import Picture, Split
from trainer.data.split import split_chosen, split_off

MakePicture = Callable[..., Picture]
MakeSplit = Callable[..., Split]


def ids(split: Split) -> set[int]:
    return {picture.id for picture in split.pictures}


def holding(split: Split, label: int) -> int:
    return sum(label in picture.labels for picture in split.pictures)


@pytest.fixture
def split(make_picture: MakePicture, make_split: MakeSplit) -> Split:
    """100 pictures: 1 on nearly all, 2 on a tenth, some empty."""
    boxes = [
        [(1, 0, 0, 5, 5)] * (i % 20 != 3) + [(2, 9, 9, 5, 5)] * (i % 10 == 0) for i in range(100)
    ]
    return make_split(*(make_picture(i, each) for i, each in enumerate(boxes)))


def test_a_split_has_its_part_of_each_class(split: Split) -> None:
    train, val = split_off(split, "val", 0.2)
    assert (train.name, val.name) == ("train", "val")
    assert ids(train) | ids(val) == ids(split) and not ids(train) & ids(val)
    assert abs(len(val.pictures) - 20) <= 1
    assert abs(holding(val, 1) - 19) <= 1
    assert holding(val, 2) == 2
    assert sum(not len(p.labels) for p in val.pictures) == 1


def test_order_names_and_ids_change_nothing(split: Split) -> None:
    shuffled = list(split.pictures)
    random.Random(1).shuffle(shuffled)
    again = split_off(replace(split, pictures=tuple(shuffled)), "val", 0.2)[1]
    assert ids(again) == ids(split_off(split, "val", 0.2)[1])


def test_equal_files_stay_on_one_side(split: Split, make_split: MakeSplit) -> None:
    twins = [replace(picture, id=picture.id + 1000) for picture in split.pictures]
    train, val = split_off(make_split(*split.pictures, *twins), "val", 0.3)
    for side in (train, val):
        assert {i % 1000 for i in ids(side)} == {i for i in ids(side) if i < 1000}


def test_a_class_on_two_pictures_is_on_both_sides(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    pictures = [make_picture(i, [(1 + (i < 2), 0, 0, 5, 5)]) for i in range(40)]
    train, val = split_off(make_split(*pictures), "val", 0.1)
    assert (holding(train, 2), holding(val, 2)) == (1, 1)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_a_few_pictures_leave_at_least_one_a_side(
    make_picture: MakePicture, make_split: MakeSplit, count: int, fraction: float
) -> None:
    for first in range(0, 100, count):
        boxes = [[(1 + i % 2, 0, 0, 5, 5)] for i in range(count)]
        pictures = (make_picture(first + i, each) for i, each in enumerate(boxes))
        train, val = split_off(make_split(*pictures), "val", fraction)
        assert train.pictures and val.pictures


def counting(split: Split) -> set[str]:
    return {p.sha256 for p in split.pictures if (~p.crowd).any()}


def test_both_sides_of_any_tiny_set_have_a_box_that_counts(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    draw = random.Random(0)
    refused = 0
    for _ in range(500):
        empty, crowds = draw.choice([0, 0.3, 0.8]), draw.choice([0, 0.3, 0.8])
        pictures: list[Picture] = []
        for i in range(draw.randint(2, 8)):
            labels = [draw.randint(1, 2) for _ in range(draw.randint(1, 3))]
            boxes = [(label, 0, 0, 5, 5) for label in labels if draw.random() >= empty]
            crowd = tuple(place for place in range(len(boxes)) if draw.random() < crowds)
            picture = make_picture(draw.randrange(10**9), boxes, crowd=crowd)
            pictures.append(replace(picture, id=i, sha256=draw.choice([picture, *pictures]).sha256))
        split = make_split(*pictures)
        try:
            halves = split_off(split, "val", draw.choice([0.05, 0.2, 0.5, 0.9]))
        except InputError:
            assert len(counting(split)) < 2
            refused += 1
            continue
        assert all(counting(half) for half in halves)
        assert ids(halves[0]) | ids(halves[1]) == ids(split) and not ids(halves[0]) & ids(halves[1])
    assert 0 < refused < 300


def test_the_picture_that_moves_is_the_one_whose_classes_others_have(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    boxes: list[list[tuple[float, ...]]] = [[], [(1, 0, 0, 5, 5)], [(1, 0, 0, 5, 5)]]
    boxes += [[(1, 0, 0, 5, 5), (2, 0, 0, 5, 5)]]
    pictures = [
        replace(make_picture(i, each, crowd=(0,) if i == 1 else ()), sha256=sha)
        for i, (each, sha) in enumerate(zip(boxes, "abdc", strict=True))
    ]
    train, val = split_off(make_split(*pictures), "val", 0.2)
    assert counting(val) == {"d"} and counting(train) == {"c"}


def test_boxes_on_one_picture_alone_cannot_be_split(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    crowd = make_picture(1, [(1, 0, 0, 5, 5)], crowd=(0,))
    alone = [make_picture(2, [(1, 0, 0, 5, 5)]), crowd, make_picture(3)]
    with pytest.raises(
        InputError, match=r"data\.val: only one picture .* annotate .*, or give val"
    ):
        split_off(make_split(*alone), "val", 0.5)
    with pytest.raises(InputError, match=r"data\.val: no picture .* annotate .*, or give val"):
        split_off(make_split(*alone[1:]), "val", 0.5)


def test_one_file_cannot_be_split(make_picture: MakePicture, make_split: MakeSplit) -> None:
    twins = [make_picture(1), replace(make_picture(1), id=2)]
    with pytest.raises(InputError, match=r"data\.val: train has too few pictures"):
        split_off(make_split(*twins), "val", 0.5)


def test_what_was_chosen_before_is_chosen_again(split: Split) -> None:
    train, val = split_off(split, "val", 0.2)
    chosen = {picture.sha256 for picture in val.pictures}
    again = split_chosen(split, "val", chosen)
    assert again is not None
    assert (ids(again[0]), ids(again[1]), again[1].name) == (ids(train), ids(val), "val")
    assert split_chosen(train, "val", chosen) is None  # they are gone
    assert split_chosen(split, "val", set()) is None


@pytest.mark.parametrize(
    "classes",
    [
        {"a": (1, 3), "b": (1,), "c": (2, 3), "d": (2,)},
        {"a": (1,), "b": (1, 3), "c": (2,), "d": (2, 3)},
        {"a": (1, 3), "b": (1, 3), "c": (2, 3), "d": (2,), "e": (2,), "f": (1,)},
    ],
)
def test_a_class_on_pictures_of_rarer_ones_is_on_both_sides(
    make_picture: MakePicture, make_split: MakeSplit, classes: dict[str, tuple[int, ...]]
) -> None:
    pictures = [
        replace(make_picture(i, [(label, 0, 0, 5, 5) for label in labels]), sha256=sha)
        for i, (sha, labels) in enumerate(classes.items())
    ]
    halves = split_off(replace(make_split(*pictures), categories=()), "val", 0.3)
    assert sum(len(half.pictures) for half in halves) == len(pictures)
    for label in (1, 2, 3):
        assert all(holding(half, label) for half in halves)
