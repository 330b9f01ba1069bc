"""A detector as one graph gives the detector's boxes, for any batch."""

from functools import cache
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from trainer.config import CocoDetector, InputError, Model
from trainer.export.conversion import unmatched
from trainer.export.traceable import ABSENT, Graph, as_graph, keep_best
from trainer.model.detectors import HEADS, Detector, build
from trainer.model.heads import DEFAULT_DETECTIONS, limit_detections

SIZE = 64


@cache
def new(name: Any) -> Detector:
    torch.manual_seed(0)
    detector = build(Model(detector=name, weights="none", image_size=SIZE), 3)
    if name.startswith(("retinanet", "fcos")):
        with torch.no_grad():  # so that every class is detected, as new heads of the other kinds do
            detector.get_parameter("head.head.classification_head.cls_logits.bias").zero_()
    if name in SHORT:  # so that about half of the proposals are below the threshold
        with torch.no_grad():
            bias = detector.get_parameter("head.rpn.head.cls_logits.bias")
            bias.copy_(torch.linspace(-6, 0, len(bias)))
    return detector.eval()


@cache
def graph(name: str) -> Graph:
    return as_graph(new(name), SIZE)


def pictures(count: int) -> Tensor:
    draw = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, SIZE, SIZE, 3), dtype=torch.uint8, generator=draw)


SHORT = ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")
"""Their pyramids lack levels that their heads name, and their proposals have a threshold."""
OTHERS = [name for name in get_args(CocoDetector) if name not in SHORT and name != "ssd300_vgg16"]
"""SSD300 takes no picture so small, and its graph is `ssd`'s."""


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [*HEADS, *SHORT, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_graph_gives_the_detectors_boxes(name: str, count: int) -> None:
    batch = pictures(count)
    boxes, labels, scores = graph(name)(batch)
    assert boxes.shape == (count, DEFAULT_DETECTIONS, 4)
    assert boxes.min() >= 0 and boxes.max() <= SIZE
    for i, expected in enumerate(new(name)(batch.permute(0, 3, 1, 2))):
        is_box = scores[i] > 0
        kept = {"boxes": boxes[i][is_box], "labels": labels[i][is_box], "scores": scores[i][is_box]}
        assert len(expected["scores"]) == len(kept["scores"]) > 0
        assert len(unmatched(expected, kept)) == len(unmatched(kept, expected)) == 0


@torch.no_grad()
@pytest.mark.parametrize("name", HEADS)
def test_a_graph_gives_as_many_boxes_as_the_detector(name: Any) -> None:
    detector = new(name)
    before = detector.head.detections_per_img
    for most in (7, 130):
        limit_detections(detector.head, most)
        batch = pictures(1)
        (expected,) = detector(batch.permute(0, 3, 1, 2))
        scores = as_graph(detector, SIZE)(batch)[2]
        assert scores.shape == (1, most)
        assert int((scores > 0).sum()) == len(expected["scores"]) == most
    limit_detections(detector.head, before)


@torch.no_grad()
@pytest.mark.parametrize("name", HEADS)
def test_boxes_do_not_depend_on_the_other_pictures_of_a_batch(name: str) -> None:
    batch = pictures(2)
    together, alone = graph(name)(batch)[2][1], graph(name)(batch[1:])[2][0]
    assert torch.allclose(together, alone, atol=1e-5)


def test_nms_is_within_a_picture_and_a_group() -> None:
    box = torch.tensor([8.0, 8.0, 24.0, 24.0])
    boxes = box.expand(2, 4, 4)
    scores = torch.tensor([[0.9, 0.8, 0.7, ABSENT], [0.6, 0.5, ABSENT, ABSENT]])
    groups = torch.tensor([[1, 1, 2, 3], [1, 2, 2, 2]])
    best, index = keep_best(boxes, scores, groups, SIZE, 0.5, 3)
    expected = torch.tensor([[0.9, 0.7, ABSENT], [0.6, 0.5, ABSENT]])
    assert torch.equal(best, expected)
    assert index[:, :2].tolist() == [[0, 2], [0, 1]]


@torch.no_grad()
def test_a_picture_without_boxes_is_all_zeros() -> None:
    torch.manual_seed(0)
    detector = build(Model(weights="none", image_size=SIZE), 3).eval()
    detector.get_parameter("head.head.classification_head.cls_logits.bias").fill_(-20)
    for output in as_graph(detector, SIZE)(pictures(2)):
        assert not output.any()


def test_a_head_without_a_graph_is_refused_by_name() -> None:
    detector = build(Model(weights="none", image_size=SIZE), 3)
    detector.head = nn.Linear(1, 1)  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"Linear cannot be exported .* \(can: RetinaNet, FCOS"):
        as_graph(detector, SIZE)
