"""Matching of anchors to boxes: torchvision's matches, padding and ignored boxes."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher, SSDMatcher
from torchvision.ops import box_iou

from trainer.model.matching import (
    BACKGROUND,
    EXCLUDED,
    IGNORED,
    NO_BOX,
    NO_PICTURE,
    BatchTargets,
    fcos_size_limits,
    inside_any,
    match_anchors,
    match_best_first,
    match_by_thresholds,
    match_points,
    pad_targets,
    pairwise_iou,
)

BY_THRESHOLDS = partial(match_by_thresholds, background_below=0.3, foreground_from=0.6)


def random_boxes(count: int, seed: int) -> Tensor:
    """Boxes (count, 4) on a canvas of 100 px."""
    draw = torch.Generator().manual_seed(seed)
    corner = 70 * torch.rand(count, 2, generator=draw)
    return torch.cat([corner, corner + 2 + 28 * torch.rand(count, 2, generator=draw)], dim=1)


def objects(boxes: Tensor, label: int = 1) -> dict[str, Tensor]:
    return {"boxes": boxes, "labels": torch.full((len(boxes),), label)}


# -- targets of a batch ---------------------------------------------------------------------------


def test_pictures_are_padded_to_the_most_boxes() -> None:
    batch = pad_targets([objects(random_boxes(2, 0)), objects(random_boxes(3, 1), label=4)])
    assert batch.boxes.shape == (2, 3, 4)
    assert batch.labels.tolist() == [[1, 1, NO_BOX], [4, 4, 4]]
    assert not batch.has_ignored


def test_a_batch_without_boxes_has_one_padding_box() -> None:
    batch = pad_targets([objects(torch.zeros(0, 4))] * 2)
    assert batch.boxes.shape == (2, 1, 4)
    assert batch.labels.tolist() == [[NO_BOX], [NO_BOX]]


def test_ignored_boxes_follow_the_objects() -> None:
    marked = {**objects(random_boxes(1, 0)), "ignored": random_boxes(2, 1)}
    batch = pad_targets([marked, objects(random_boxes(1, 2))])
    assert batch.labels.tolist() == [[1, IGNORED, IGNORED], [1, NO_BOX, NO_BOX]]
    assert torch.equal(batch.boxes[0, 1:], marked["ignored"])
    assert batch.has_ignored


def test_padding_adds_boxes_and_pictures_without_labels() -> None:
    batch = pad_targets([objects(random_boxes(2, 0))]).padded_to(2, 3)
    assert batch.labels.tolist() == [[1, 1, NO_BOX], [NO_PICTURE] * 3]
    assert not batch.boxes[1].any()


def test_selected_boxes_become_objects_of_one_class() -> None:
    batch = BatchTargets(random_boxes(3, 0)[None], torch.tensor([[5, IGNORED, NO_BOX]]))
    selected = batch.select(batch.labels == IGNORED)
    assert selected.labels.tolist() == [[NO_BOX, 1, NO_BOX]]
    assert torch.equal(selected.boxes[0, 1], batch.boxes[0, 1])


# -- matches --------------------------------------------------------------------------------------


def test_thresholds_give_torchvisions_matches() -> None:
    anchors = random_boxes(60, 1)
    targets = [objects(random_boxes(count, count)) for count in (1, 4, 7)]
    theirs = Matcher(0.6, 0.3, allow_low_quality_matches=True)
    expected = [theirs(box_iou(target["boxes"], anchors)) for target in targets]
    assert torch.equal(
        match_anchors(pad_targets(targets), anchors, BY_THRESHOLDS), torch.stack(expected)
    )


def test_the_best_anchors_first_are_torchvisions_matches() -> None:
    anchors = random_boxes(60, 1)
    targets = [objects(random_boxes(count, count)) for count in (1, 4, 7)]
    expected = [SSDMatcher(0.5)(box_iou(target["boxes"], anchors)) for target in targets]
    match = partial(match_best_first, foreground_from=0.5)
    assert torch.equal(match_anchors(pad_targets(targets), anchors, match), torch.stack(expected))


def test_a_point_belongs_to_the_smallest_box_around_it_that_fits_its_level() -> None:
    points = torch.tensor(
        [[16.0, 16.0, 24.0, 24.0], [60.0, 60.0, 68.0, 68.0], [8.0, 8.0, 24.0, 24.0]]
    )
    limits = fcos_size_limits(points, [2, 1])
    assert limits[0].tolist() == [0, 0, 64] and limits[1].tolist() == [64, 64, torch.inf]
    boxes = torch.tensor([[0.0, 0.0, 40.0, 40.0], [10.0, 10.0, 30.0, 30.0]])
    match = partial(match_points, sizes=limits, radius=1.5)
    matches = match_anchors(pad_targets([objects(boxes)]), points, match)
    assert matches.tolist() == [[1, BACKGROUND, BACKGROUND]]


def test_padding_changes_no_match_and_a_padding_picture_is_excluded() -> None:
    anchors = random_boxes(60, 1)
    batch = pad_targets([objects(random_boxes(count, count)) for count in (1, 4)])
    matches = match_anchors(batch, anchors, BY_THRESHOLDS)
    padded = match_anchors(batch.padded_to(3, 9), anchors, BY_THRESHOLDS)
    assert torch.equal(padded[:2], matches)
    assert (padded[2] == EXCLUDED).all()


def test_background_in_an_ignored_box_is_excluded() -> None:
    anchors = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [80.0, 80.0, 90.0, 90.0]]
    )
    marked = {**objects(anchors[:1]), "ignored": torch.tensor([[40.0, 40.0, 70.0, 70.0]])}
    matches = match_anchors(pad_targets([marked]), anchors, BY_THRESHOLDS)
    assert matches.tolist() == [[0, EXCLUDED, BACKGROUND]]


# -- overlaps -------------------------------------------------------------------------------------


def test_iou_has_the_bits_of_torchvisions() -> None:
    boxes, others = random_boxes(12, 0), random_boxes(9, 1)
    assert torch.equal(pairwise_iou(boxes, others), box_iou(boxes, others))


@pytest.mark.parametrize(("right", "is_inside"), [(4.0, False), (5.0, True), (10.0, True)])
def test_an_anchor_is_inside_with_half_of_its_area(right: float, is_inside: bool) -> None:
    box = torch.tensor([[0.0, 0.0, right, 10.0]])
    anchor = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert inside_any(box, anchor).tolist() == [is_inside]
