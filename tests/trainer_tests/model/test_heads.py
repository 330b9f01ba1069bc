"""Heads: detections of each picture, their number and precision, and ignored boxes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from trainer.config import Model
from trainer.model.backbones import Normalization
from trainer.model.detectors import Detector, build, rebuild
from trainer.model.freezing import set_depth
from trainer.model.heads import DEFAULT_DETECTIONS, SCORE_THRESHOLD, FasterRCNNFromPyramid
from trainer.model.matching import Targets

from .small_detectors import DETECTORS, SIZE, detections, new, pictures, shared, target

COCO = "retinanet_resnet50_fpn_v2"
LARGE = 96


@pytest.fixture(params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> Detector:
    return shared(request.param)


@pytest.mark.parametrize("classes", [1, 90])
@pytest.mark.parametrize("name", DETECTORS)
def test_detections_are_boxes_labels_and_scores_best_first(name: str, classes: int) -> None:
    batch = detections(shared(name, classes))
    assert len(batch) == 2
    for picture in batch:
        assert len(picture["labels"]) > 0
        boxes, labels, scores = picture["boxes"], picture["labels"], picture["scores"]
        assert boxes.shape == (len(scores), 4) and labels.shape == scores.shape
        assert len(scores) <= DEFAULT_DETECTIONS
        assert ((scores >= SCORE_THRESHOLD) & (scores <= 1)).all()
        assert (scores[:-1] >= scores[1:]).all()
        assert ((boxes >= 0) & (boxes <= SIZE)).all()
        assert (boxes[:, :2] <= boxes[:, 2:]).all()


def candidates(head: Any) -> list[int]:
    """How many candidates a head keeps before NMS."""
    if isinstance(head, FasterRCNNFromPyramid):
        head.rpn.eval()
        return [head.rpn.pre_nms_top_n(), head.rpn.post_nms_top_n()]
    return [head.topk_candidates]


@pytest.mark.parametrize(
    ("name", "most"), [*zip(DETECTORS, (1000, 1000, 1000, 400), strict=True), (COCO, 1000)]
)
def test_detections_are_limited_by_the_config(name: Any, most: int) -> None:
    few, many = (
        Model(detector=name, weights="none", image_size=SIZE, detections=detections)
        for detections in (20, 250)
    )
    with torch.device("meta"):
        heads = [rebuild(few, 2, Normalization((0, 0, 0), (1, 1, 1))).head, build(many, 2).head]
    assert [head.detections_per_img for head in heads] == [20, 250]
    assert set(candidates(heads[0])) == {most}
    assert set(candidates(heads[1])) == {2.5 * most}


def test_the_background_is_never_detected(detector: Detector) -> None:
    (picture,) = detections(detector, 1)
    assert len(picture["labels"]) > 0
    assert set(picture["labels"].tolist()) <= {1, 2}


def test_boxes_are_decoded_in_fp32_whatever_the_precision() -> None:
    detector = new("retinanet", size=320)  # a bf16 has only even numbers from 256 on
    with torch.no_grad():  # no offsets: every box is its anchor
        for name in ("weight", "bias"):
            detector.get_parameter(f"head.head.regression_head.bbox_reg.{name}").zero_()
            detector.get_parameter(f"head.head.classification_head.cls_logits.{name}").zero_()
    plain, reduced = (
        detections(detector, 1, p, size=320)[0]["boxes"] for p in (None, torch.bfloat16)
    )
    exact = {tuple(box) for box in plain.tolist()}
    assert len(reduced) > 0
    assert {tuple(box) for box in reduced.tolist()} == exact


def test_losses_and_detections_are_fp32_in_reduced_precision(detector: Detector) -> None:
    set_depth(detector, detector.stages, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector(pictures(1), [target(1)])
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    (picture,) = detections(detector, 1, torch.bfloat16)
    assert picture["boxes"].dtype is picture["scores"].dtype is torch.float32


# -- ignored boxes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retinanet", "fcos", "faster_rcnn", "ssd"])
def test_a_batch_of_ignored_boxes_alone_teaches_no_background(name: str) -> None:
    detector = new(name, classes=5, size=LARGE).train()
    wide = torch.tensor([[-500.0, -500.0, 600.0, 600.0]])
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = detector(
        torch.zeros(2, 3, LARGE, LARGE, dtype=torch.uint8), [{**nothing, "ignored": wide}] * 2
    )
    assert all(loss == 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in detector.head.parameters() if p.grad is not None]
    assert gradients and not any(gradient.any() for gradient in gradients)


def test_proposals_in_an_ignored_box_train_only_on_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = new("faster_rcnn", classes=5, size=LARGE).train()
    head: Any = detector.head
    ignored, boxes = [[40.0, 40.0, 90.0, 90.0]], [[45.0, 45.0, 75.0, 75.0]]
    target = {"boxes": torch.tensor(boxes), "labels": torch.tensor([1])}
    marked = {**target, "ignored": torch.tensor(ignored)}
    learned: list[Tensor] = []
    select = head.roi_heads.select_training_samples

    def seen(proposals: list[Tensor], targets: Targets) -> Any:
        learned.extend(proposals)
        return select(proposals, targets)

    monkeypatch.setattr(head.roi_heads, "select_training_samples", seen)
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, LARGE, LARGE), dtype=torch.uint8)
    losses = detector(pictures, [target, marked])
    assert all(torch.isfinite(loss) for loss in losses.values())
    x1, y1, x2, y2 = learned[1].T
    both = (x2.clamp(max=90) - x1.clamp(min=40)).clamp(min=0)
    both = both * (y2.clamp(max=90) - y1.clamp(min=40)).clamp(min=0)
    within = both >= 0.5 * (x2 - x1) * (y2 - y1)
    on_object = box_iou(learned[1], marked["boxes"])[:, 0] >= 0.5
    assert not (within & ~on_object).any() and len(learned[1]) > 10
    anchors = [torch.tensor([[42.0, 42.0, 60.0, 60.0], [0.0, 0.0, 20.0, 20.0], boxes[0]])] * 2
    labels, _ = head.rpn.assign_targets_to_anchors(anchors, [target, marked])
    assert [label.tolist() for label in labels] == [[0, 0, 1], [-1, 0, 1]]
