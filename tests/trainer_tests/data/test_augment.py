"""A flip moves boxes with the pixels."""

import torch
from torch import Tensor

from trainer.data.augment import flip


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
