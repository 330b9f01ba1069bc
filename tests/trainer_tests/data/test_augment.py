"""Whatever moves the pixels moves the boxes with them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.data.augment import KEPT, ZOOM, flip, light


def scene() -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Two pictures of 8 x 8, dark but for one bright box each."""
    boxes = torch.tensor([[1.0, 2.0, 3.0, 6.0], [4.0, 0.0, 8.0, 1.0]])
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for picture, (x1, y1, x2, y2) in zip(pictures, boxes.int().tolist(), strict=True):
        picture[:, y1:y2, x1:x2] = 255
    return pictures, [{"boxes": box[None], "labels": torch.tensor([1])} for box in boxes]


def bright(picture: Tensor) -> list[int]:
    rows, columns = torch.nonzero(picture[0], as_tuple=True)
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return [int(v) for v in corners]


def test_boxes_move_with_the_pixels() -> None:
    pictures, targets = flip(*scene(), [True, True])
    for picture, target in zip(pictures, targets, strict=True):
        assert target["boxes"].tolist() == [bright(picture)]
    assert bright(pictures[0]) == [5, 2, 7, 6]


def test_only_the_chosen_are_flipped() -> None:
    before = scene()
    pictures, targets = flip(*scene(), [False, True])
    assert torch.equal(pictures[0], before[0][0])
    assert torch.equal(targets[0]["boxes"], before[1][0]["boxes"])
    assert not torch.equal(pictures[1], before[0][1])


def test_twice_is_as_before() -> None:
    before = scene()
    pictures, targets = flip(*flip(*scene(), [True, True]), [True, True])
    assert torch.equal(pictures, before[0])
    assert torch.equal(targets[0]["boxes"], before[1][0]["boxes"])


def test_a_picture_without_boxes_flips_too() -> None:
    pictures, _ = scene()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    _, targets = flip(pictures, [empty, empty], [True, False])
    assert [tuple(target["boxes"].shape) for target in targets] == [(0, 4), (0, 4)]


def test_labels_stay_and_what_came_in_is_not_changed() -> None:
    pictures, targets = scene()
    copy, _ = scene()
    _, mirrored = flip(pictures, targets, [True, True])
    assert torch.equal(pictures, copy)
    assert targets[0]["boxes"].tolist() == [[1, 2, 3, 6]]
    assert mirrored[0]["labels"].tolist() == [1]


def test_boxes_to_ignore_move_too() -> None:
    pictures, targets = scene()
    marked = [{**each, "ignored": each["boxes"].repeat(2, 1)} for each in targets]
    _, mirrored = flip(pictures, marked, [True, False])
    for each in mirrored:
        assert each["ignored"].tolist() == each["boxes"].tolist() * 2


# -- light ----------------------------------------------------------------------------------------

SIZE = 96


def square(corner: int, side: int = 24) -> tuple[Tensor, dict[str, Tensor]]:
    """A dark canvas (darker than the grey borders) with one bright square."""
    picture = torch.full((3, SIZE, SIZE), 90, dtype=torch.uint8)
    picture[:, corner : corner + side, corner : corner + side] = 220
    box = torch.tensor([[corner, corner, corner + side, corner + side]], dtype=torch.float32)
    return picture, {"boxes": box, "labels": torch.tensor([3])}


def changed(seed: int, corner: int = 36) -> tuple[Tensor, dict[str, Tensor]]:
    return light(*square(corner), np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_box_is_where_its_pixels_are(seed: int) -> None:
    picture, target = changed(seed)
    assert picture.shape == (3, SIZE, SIZE) and picture.dtype == torch.uint8
    lit = (picture > 150).to(torch.uint8)
    assert target["boxes"][0].tolist() == pytest.approx(bright(lit), abs=1.0)
    assert target["labels"].tolist() == [3]
    x1, y1, x2, y2 = target["boxes"][0].tolist()
    assert x2 - x1 == pytest.approx(y2 - y1, abs=1e-4)
    assert ZOOM[0] * 24 - 0.1 <= x2 - x1 <= ZOOM[1] * 24 + 0.1


def test_what_is_cut_to_a_small_rest_is_no_target_and_the_rest_stays_on_the_canvas() -> None:
    kept = 0
    for seed in range(200):
        picture, target = changed(seed, corner=0)
        assert len(target["boxes"]) == len(target["labels"])
        assert ((target["boxes"] >= 0) & (target["boxes"] <= SIZE)).all()
        for box in target["boxes"]:
            kept += 1
            x1, y1, x2, y2 = box.tolist()
            assert (x2 - x1) * (y2 - y1) >= KEPT * (ZOOM[0] * 24) ** 2
            assert (picture > 150).any()
    assert 100 < kept < 200  # some are cut off, most are not


@pytest.mark.parametrize("seed", range(40))
def test_what_is_left_of_a_box_to_ignore_is_still_ignored(seed: int) -> None:
    picture, target = square(0)
    marked = {**target, "ignored": target["boxes"]}
    (pixels, plain), (same, result) = (
        light(picture, each, np.random.default_rng(seed)) for each in (target, marked)
    )
    assert torch.equal(pixels, same) and torch.equal(plain["boxes"], result["boxes"])
    assert len(result["ignored"]) >= len(result["boxes"])
    if (pixels > 150).sum() > 3 * 9:  # more than a seam
        (box,) = result["ignored"].tolist()
        assert box == pytest.approx(bright((pixels > 150).to(torch.uint8)), abs=1.0)


def test_size_place_and_tone_differ() -> None:
    result = [changed(seed) for seed in range(8)]
    assert len({tuple(target["boxes"][0].tolist()) for _, target in result}) == 8
    assert len({int(picture.max()) for picture, _ in result}) > 4


def test_a_picture_without_boxes_stays_one() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    _, target = light(square(0)[0], nothing, np.random.default_rng(0))
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,)
