"""Batches: every picture once, a pure function of seed and epoch."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from trainer.data.batches import Batch, batches, num_workers_for, steps, target
from trainer.data.dataset import Picture, Split

MakePicture = Callable[..., Picture]
MakeSplit = Callable[..., Split]
SIZE = 8


def epoch_of(split: Split, batch_size: int = 4, **changes: Any) -> list[Batch]:
    """An epoch of canvases whose left column holds the picture's index, the rest 200."""
    count = len(split.pictures)
    canvases = np.full((count, SIZE, SIZE, 3), 200, dtype=np.uint8)
    canvases[:, :, 0] = np.arange(count)[:, None, None]
    settings: dict[str, Any] = {"augment": "flip", "seed": 0, "epoch": 0, **changes}
    return list(batches(split, canvases, batch_size=batch_size, **settings))


def order(result: list[Batch]) -> list[int]:
    return [int(picture.min()) for batch in result for picture in batch.pictures]


def flipped(result: list[Batch]) -> list[bool]:
    return [int(picture[0, 0, 0]) == 200 for batch in result for picture in batch.pictures]


@pytest.fixture(scope="module")
def split(make_picture: MakePicture, make_split: MakeSplit) -> Split:
    return make_split(*(make_picture(i, [(1, i, 0, 10, 10)]) for i in range(13)))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 12, 13, 14, 100])
def test_every_picture_comes_once_in_batches_of_nearly_one_size(
    split: Split, batch_size: int
) -> None:
    result = epoch_of(split, batch_size)
    assert sorted(order(result)) == list(range(13))
    sizes = [len(batch.pictures) for batch in result]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= (3 if batch_size == 2 else batch_size)
    assert min(sizes) > 1 or batch_size == 1  # a norm of one value is none
    assert len(result) == steps(13, batch_size)


def test_one_picture_is_an_epoch(make_picture: MakePicture, make_split: MakeSplit) -> None:
    assert order(epoch_of(make_split(make_picture()))) == [0]


def test_an_epoch_follows_from_seed_and_epoch_alone(split: Split) -> None:
    first = epoch_of(split, seed=3, epoch=5)
    torch.manual_seed(1)
    np.random.seed(1)
    again = epoch_of(split, seed=3, epoch=5)
    for (pictures, targets, _), (others, other_targets, _) in zip(first, again, strict=True):
        assert torch.equal(pictures, others)
        for one, other in zip(targets, other_targets, strict=True):
            assert torch.equal(one["boxes"], other["boxes"])


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"seed": 2**31 - 1, "epoch": 999}])
def test_another_seed_or_epoch_is_another_order_with_other_flips(
    split: Split, other: dict[str, int]
) -> None:
    one, two = epoch_of(split), epoch_of(split, **other)
    assert order(one) != order(two)
    assert dict(zip(order(one), flipped(one), strict=True)) != (
        dict(zip(order(two), flipped(two), strict=True))
    )


def test_a_pictures_flip_does_not_depend_on_the_batch_size(split: Split) -> None:
    one, two = epoch_of(split, 2), epoch_of(split, 5)
    assert order(one) == order(two)
    assert flipped(one) == flipped(two)


def test_about_half_are_flipped_and_each_in_some_epoch(split: Split) -> None:
    flips = np.zeros(13)
    for epoch in range(20):
        result = epoch_of(split, epoch=epoch)
        flips[order(result)] += flipped(result)
    assert 0.35 < flips.mean() / 20 < 0.65
    assert flips.min() > 0


def test_without_augmentation_nothing_is_flipped(split: Split) -> None:
    result = epoch_of(split, augment="none")
    assert not any(flipped(result))
    assert order(result) == order(epoch_of(split))


def test_light_is_a_function_of_seed_epoch_and_picture_alone(split: Split) -> None:
    def by_picture(batch_size: int, **changes: Any) -> dict[int, Any]:
        result = epoch_of(split, batch_size, augment="light", **changes)
        targets = [each["boxes"].tolist() for batch in result for each in batch.targets]
        plain = order(epoch_of(split, batch_size, augment="none", **changes))
        pictures = [picture for batch in result for picture in batch.pictures]
        return {
            i: (each, picture.tolist())
            for i, each, picture in zip(plain, targets, pictures, strict=True)
        }

    assert by_picture(4) == by_picture(13)
    assert by_picture(4) != by_picture(4, epoch=1) != by_picture(4, seed=1)


def test_light_flip_does_both(split: Split) -> None:
    for name, flips in (("light", False), ("light_flip", True)):
        result = epoch_of(split, augment=name)
        shapes = {tuple(batch.pictures.shape[1:]) for batch in result}
        assert shapes == {(3, SIZE, SIZE)}
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p, *_ in result)
        rows = [picture[0, SIZE // 2] for batch in result for picture in batch.pictures]
        dark = [int(row.argmin()) for row in rows if row.min() < 100]  # else it is out of the cut
        assert len(dark) > 3
        assert any(column > SIZE // 2 for column in dark) == flips


def test_a_flip_moves_the_boxes_of_its_picture(split: Split) -> None:
    result = epoch_of(split)
    plain = {i: target(split.pictures[i], SIZE)["boxes"] for i in range(13)}
    targets = [each for batch in result for each in batch.targets]
    assert any(flipped(result)) and not all(flipped(result))
    for i, each, mirrored in zip(order(result), targets, flipped(result), strict=True):
        x1, y1, x2, y2 = plain[i][0].tolist()
        expected = [SIZE - x2, y1, SIZE - x1, y2] if mirrored else [x1, y1, x2, y2]
        assert each["boxes"][0].tolist() == pytest.approx(expected, abs=1e-5)


def test_pictures_are_bytes_with_their_channels_first(split: Split) -> None:
    pictures = epoch_of(split, 13)[0].pictures
    assert pictures.dtype is torch.uint8
    assert pictures.shape == (13, 3, SIZE, SIZE)


def test_targets_are_corners_on_the_canvas(make_picture: MakePicture) -> None:
    picture = make_picture(1, [(2, 10, 20, 30, 40)], size=(100, 200))
    result = target(picture, 50)  # a quarter
    assert result["boxes"].tolist() == [[2.5, 5.0, 10.0, 15.0]]
    assert result["labels"].tolist() == [2]
    assert (result["boxes"].dtype, result["labels"].dtype) == (torch.float32, torch.int64)


def test_crowds_are_not_trained_on(make_picture: MakePicture) -> None:
    picture = make_picture(1, [(1, 0, 0, 9, 9), (2, 20, 20, 30, 30)], crowd=(0,))
    assert target(picture, SIZE)["labels"].tolist() == [2]
    crowd = make_picture(1, [(1, 0, 0, 9, 9)], crowd=(0,))
    assert target(crowd, SIZE)["boxes"].shape == (0, 4)


def test_crowds_are_ignored_boxes_of_a_target(make_picture: MakePicture) -> None:
    boxes = [(1, -10, 20, 30, 40), (2, 20, 20, 30, 30), (1, 200, 0, 9, 9)]
    result = target(make_picture(1, boxes, size=(100, 200), crowd=(0, 2)), 50)  # a quarter
    assert result["ignored"].tolist() == [[0, 5.0, 5.0, 15.0]]  # the last is outside
    assert result["boxes"].tolist() == [[5.0, 5.0, 12.5, 12.5]]
    assert "ignored" not in target(make_picture(1, boxes, size=(100, 200)), 50)


def test_boxes_are_clipped_to_the_picture_and_dropped_outside(make_picture: MakePicture) -> None:
    picture = make_picture(1, [(1, -10, -10, 20, 20), (2, 96, 0, 5, 5), (2, 90, 60, 50, 50)])
    result = target(picture, 96)
    assert result["boxes"].tolist() == [[0, 0, 10, 10], [90, 60, 96, 72]]
    assert result["labels"].tolist() == [1, 2]


def test_a_picture_without_boxes_has_an_empty_target(make_picture: MakePicture) -> None:
    result = target(make_picture(), SIZE)
    assert (result["boxes"].shape, result["labels"].shape) == ((0, 4), (0,))


@pytest.mark.parametrize("augment", ["none", "light_flip"])
@pytest.mark.parametrize("num_workers", [1, 3, 20])
def test_batches_that_threads_make_ahead_are_the_same(
    split: Split, augment: str, num_workers: int
) -> None:
    alone = epoch_of(split, 2, augment=augment)
    ahead = epoch_of(split, 2, augment=augment, num_workers=num_workers)
    for one, other in zip(alone, ahead, strict=True):
        assert torch.equal(one.pictures, other.pictures)
        for boxes, others in zip(one.targets, other.targets, strict=True):
            assert torch.equal(boxes["boxes"], others["boxes"])
            assert torch.equal(boxes["labels"], others["labels"])


def test_threads_are_no_further_ahead_than_there_are_of_them(split: Split) -> None:
    made: list[int] = []

    def features(indices: Iterable[int], mirrored: Sequence[bool]) -> Any:
        made.append(len(mirrored))

    canvases = np.zeros((13, SIZE, SIZE, 3), dtype=np.uint8)
    settings: dict[str, Any] = {"batch_size": 1, "augment": "none", "seed": 0, "epoch": 0}
    prefetched = batches(split, canvases, **settings, features=features, num_workers=2)
    next(prefetched)
    assert len(made) <= 3
    prefetched.close()  # type: ignore[attr-defined]
    assert len(made) <= 3


def test_what_goes_wrong_in_a_thread_is_raised_where_batches_are_used(split: Split) -> None:
    def features(indices: Iterable[int], mirrored: Sequence[bool]) -> Any:
        raise MemoryError("no memory")

    canvases = np.zeros((13, SIZE, SIZE, 3), dtype=np.uint8)
    settings: dict[str, Any] = {"batch_size": 1, "augment": "none", "seed": 0, "epoch": 0}
    with pytest.raises(MemoryError):
        list(batches(split, canvases, **settings, features=features, num_workers=2))


@pytest.mark.parametrize(("device", "threads", "num_workers"), [("cpu", 4, 0), ("cuda", 4, 3)])
def test_a_gpu_has_batches_made_for_it_by_all_cores_but_one(
    device: str, threads: int, num_workers: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with num_workers_for(torch.device(device)) as result:
            assert result == num_workers
            assert torch.get_num_threads() == (1 if num_workers else threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_box_that_is_no_box_in_fp32_is_no_target(make_picture: MakePicture) -> None:
    picture = make_picture(1, [(1, 30, 5, 1e-14, 10), (2, 30, 5, 10, 10)], size=(64, 64))
    assert target(picture, 64)["labels"].tolist() == [2]
