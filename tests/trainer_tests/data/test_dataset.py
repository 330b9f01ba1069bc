"""Category ids become labels, and digests tell data sets apart."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from trainer.config import Data
from trainer.data.loading import load

from .small_sets import CACHE, Coco, coco, draw, rewrite, write


def test_category_ids_with_gaps_become_labels_from_1_in_their_order(data: Data) -> None:
    splits = load(data, CACHE)
    assert [(c.id, c.name) for c in splits.categories] == [(3, "red"), (7, "blue")]
    picture = splits.train.pictures[1]
    assert picture.id == 11
    assert picture.labels.tolist() == [2, 1]
    assert picture.boxes.tolist() == [[2, 2, 3, 4], [3, 2, 3, 4]]
    assert not picture.crowd.any()
    assert splits.test is None
    assert not splits.val_is_from_train
    (note,) = splits.notes
    assert note.startswith("data: warnings (2 class-rare, 2 split-small)")


def test_val_has_the_labels_of_train_even_where_it_lists_fewer(data: Data) -> None:
    rewrite(data.val, lambda c: c["categories"].pop(1))
    rewrite(data.val, lambda c: c["annotations"].pop(1))
    (picture,) = load(data, CACHE).val.pictures
    assert picture.labels.tolist() == [2]


def test_the_digest_is_of_the_content_not_of_the_place(data: Data, tmp_path: Path) -> None:
    there = copytree(data.train.parent, tmp_path / "there")
    (there / "a.png").rename(there / "other name.png")
    rewrite(there / "train.json", lambda c: c["images"][0].update(file_name="other name.png"))
    moved = Data(train=there / "train.json", val=there / "val.json")
    assert load(moved, CACHE).digest == load(data, CACHE).digest


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].update(bbox=[0, 2, 3, 5]),
        lambda c: c["annotations"][0].update(category_id=3),
        lambda c: c["annotations"][0].update(iscrowd=1),
        lambda c: c["annotations"].pop(),
        lambda c: c["images"].reverse(),
        lambda c: c["images"][0].update(file_name="d.png"),
    ],
)
def test_every_change_changes_the_digest(data: Data, change: Callable[[Coco], Any]) -> None:
    draw(data.train.parent, "d.png")
    before = load(data, CACHE).digest
    rewrite(data.train, change)
    assert load(data, CACHE).digest != before


def test_the_test_split_does_not_change_the_digest(data: Data, tmp_path: Path) -> None:
    with_test = data.model_copy(
        update={"test": write(tmp_path / "test.json", coco(draw(tmp_path, "d.png")))}
    )
    splits = load(with_test, CACHE)
    assert splits.test and len(splits.test.pictures) == 1
    assert splits.digest == load(data, CACHE).digest
