"""Detectors: losses to learn from, detections to score, whatever the classes and targets."""

from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from trainer.config import BadInput, Model, NewDetector, TrainConfig
from trainer.data.dataset import Category
from trainer.evaluation.predict import predict
from trainer.model.backbones import Pixels
from trainer.model.detectors import HEADS, Detector, Shape, build, rebuild
from trainer.model.freezing import set_depth
from trainer.model.heads import DETECTIONS, SCORE_THRESHOLD, FasterRCNNFromPyramid, SSDFromPyramid
from trainer.model.outline import outline, unused

SIZE = 64
DETECTORS = get_args(NewDetector)
COCO = "retinanet_resnet50_fpn_v2"


def new(name: Any, classes: int = 2, size: int = SIZE, unsure: bool = False) -> Detector:
    torch.manual_seed(0)
    detector = build(Model(detector=name, weights="none", image_size=size), classes)
    if unsure and name in {"retinanet", "fcos"}:  # every class is found, as the others do anew
        with torch.no_grad():
            detector.get_parameter("head.head.classification_head.cls_logits.bias").zero_()
    return detector


@cache
def shared(name: str, classes: int = 2) -> Detector:
    return new(name, classes, unsure=True)


@pytest.fixture(params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> Detector:
    return shared(request.param)


def pictures(count: int = 2, size: int = SIZE) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)


def target(*labels: int) -> dict[str, Tensor]:
    corners = [[4.0 + i, 8.0, 36.0 + i, 40.0] for i in range(len(labels))]
    return {
        "boxes": torch.tensor(corners).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def learn(detector: Detector, *targets: dict[str, Tensor]) -> dict[str, Tensor]:
    set_depth(detector, detector.stages, 1)
    detector.zero_grad()
    losses = detector(pictures(len(targets)), list(targets))
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize("classes", [1, 90])
@pytest.mark.parametrize("name", DETECTORS)
def test_losses_are_finite_and_reach_every_open_parameter(name: str, classes: int) -> None:
    detector = shared(name, classes)
    losses = learn(detector, target(classes, 1))
    assert len(losses) >= 2
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    for parameter_name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name


def test_a_batch_without_any_box_can_be_learned_from(detector: Detector) -> None:
    losses = learn(detector, target())
    assert all(torch.isfinite(loss) for loss in losses.values())
    gradients = [p.grad for p in detector.head.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    learned = any(gradient.abs().sum() > 0 for gradient in gradients)
    # SSD takes three places of background for each box: for none, none
    assert learned != isinstance(detector.head, SSDFromPyramid)


@torch.no_grad()
def detections(
    detector: Detector, count: int = 2, precision: Any = None, size: int = SIZE
) -> list[dict[str, Tensor]]:
    detector.eval()
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        return detector(pictures(count, size))


@pytest.mark.parametrize("classes", [1, 90])
@pytest.mark.parametrize("name", DETECTORS)
def test_detections_are_boxes_labels_and_scores_best_first(name: str, classes: int) -> None:
    found = detections(shared(name, classes))
    assert len(found) == 2
    for own in found:
        assert len(own["labels"]) > 0
        boxes, labels, scores = own["boxes"], own["labels"], own["scores"]
        assert boxes.shape == (len(scores), 4) and labels.shape == scores.shape
        assert len(scores) <= DETECTIONS
        assert ((scores >= SCORE_THRESHOLD) & (scores <= 1)).all()
        assert (scores[:-1] >= scores[1:]).all()
        assert ((boxes >= 0) & (boxes <= SIZE)).all()
        assert (boxes[:, :2] <= boxes[:, 2:]).all()


def candidates(head: Any) -> list[int]:
    """How many boxes a head looks at before NMS."""
    if isinstance(head, FasterRCNNFromPyramid):
        head.rpn.eval()
        return [head.rpn.pre_nms_top_n(), head.rpn.post_nms_top_n()]
    return [head.topk_candidates]


@pytest.mark.parametrize(
    ("name", "most"), [*zip(DETECTORS, (1000, 1000, 1000, 400), strict=True), (COCO, 1000)]
)
def test_a_detector_finds_as_many_as_its_configuration_says(name: Any, most: int) -> None:
    few, many = (
        Model(detector=name, weights="none", image_size=SIZE, detections=detections)
        for detections in (20, 250)
    )
    with torch.device("meta"):
        heads = [rebuild(few, 2, Pixels((0, 0, 0), (1, 1, 1))).head, build(many, 2).head]
    assert [head.detections_per_img for head in heads] == [20, 250]
    assert set(candidates(heads[0])) == {most}
    assert set(candidates(heads[1])) == {2.5 * most}


def test_the_background_is_never_detected(detector: Detector) -> None:
    (own,) = detections(detector, 1)
    assert len(own["labels"]) > 0
    assert set(own["labels"].tolist()) <= {1, 2}


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
    (own,) = detections(detector, 1, torch.bfloat16)
    assert own["boxes"].dtype is own["scores"].dtype is torch.float32


def test_names_begin_with_backbone_neck_and_head(detector: Detector) -> None:
    assert {name.split(".")[0] for name in detector.state_dict()} == {"backbone", "neck", "head"}


def test_equal_seeds_give_equal_detectors() -> None:
    one, two = new("retinanet").state_dict(), new("retinanet").state_dict()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_an_export_gives_all_that_fits(tmp_path: Path) -> None:
    earlier = new("retinanet").state_dict()
    save_file({n: t.contiguous() for n, t in earlier.items()}, tmp_path / "model.safetensors")
    model = Model(weights=str(tmp_path), image_size=SIZE)
    for classes, fresh in ((2, set()), (3, {"cls_logits.weight", "cls_logits.bias"})):
        own = build(model, classes).state_dict()
        shapes = {n for n in own if own[n].shape != earlier[n].shape}
        assert {".".join(n.split(".")[-2:]) for n in shapes} == fresh
        assert all(torch.equal(own[n], earlier[n]) for n in own.keys() - shapes)


@pytest.mark.parametrize(
    ("name", "deeper"), [("resnet18", "resnet34"), ("convnext_tiny", "convnext_small")]
)
def test_a_deeper_models_export_is_refused_with_what_it_has_besides(
    tmp_path: Path, name: str, deeper: str
) -> None:
    state = build(Model(backbone=deeper, weights="none", image_size=SIZE), 2).state_dict()
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=rf"does not fit {name}: it has besides \w+\.\S+, .* more; "):
        build(Model(backbone=name, weights=str(tmp_path), image_size=SIZE), 2)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_small_object_on_the_canvas_can_be_learned(name: str) -> None:
    """A few steps on one picture must lower the loss, of RetinaNet's both."""
    detector = new(name)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    before = learn(detector, target(1))
    for _ in range(5):
        learn(detector, target(1))
        optimizer.step()
    after = learn(detector, target(1))
    assert sum(after.values()) < sum(before.values())
    assert name != "retinanet" or all(after[loss] < before[loss] for loss in before)


def test_the_pyramid_lies_at_its_strides_on_an_unpadded_backbone_too() -> None:
    model = Model(backbone="inception_v3", weights="none", image_size=96)
    with torch.device("meta"):
        detector = build(model, 2).eval()
        levels = detector.features(torch.empty(1, 3, 96, 96, dtype=torch.uint8))
    assert [level.shape[-1] for level in levels.values()] == [12, 6, 3, 2, 1]


@pytest.mark.parametrize("ids", [(0, 5, 17), (1,), tuple(range(90))])
@pytest.mark.parametrize("name", DETECTORS)
def test_category_ids_come_out_as_they_went_in(name: str, ids: tuple[int, ...]) -> None:
    """With gaps, from 0, one and ninety."""
    categories = tuple(Category(i, f"class {i}") for i in ids)
    detector = shared(name, len(ids)).eval()
    picture = Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        (found,) = detector(pictures(1))
    boxes = predict(detector, categories, picture, SIZE, threshold=0.0)
    assert len(boxes) == len(found["labels"]) > 0
    assert [box.category.id for box in boxes] == [ids[label - 1] for label in found["labels"]]


@pytest.mark.parametrize("size", [64, 128, 320, 640])
@pytest.mark.parametrize("name", DETECTORS)
def test_anchors_grow_with_the_canvas(name: str, size: int) -> None:
    """The smallest is a share of the canvas, but no smaller than what a map can tell apart."""
    head: Any = HEADS[name](Shape(2, size))
    generator = head.rpn.anchor_generator if name == "faster_rcnn" else head.anchor_generator
    levels = [torch.empty(1, 1, max(1, size // s), max(1, size // s)) for s in (8, 16, 32, 64, 128)]
    anchors = generator(ImageList(torch.empty(1, 3, size, size), [(size, size)]), levels)[0]
    smallest = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1).sqrt().min().item()
    expected = max(size / 40, 8) if name == "fcos" else max(size / 16, 20)
    assert smallest == pytest.approx(expected, rel=0.05)


def test_an_outline_counts_what_trains_at_each_depth() -> None:
    own = outline(Model(weights="none", image_size=SIZE), classes=2)
    detector = shared("retinanet")
    for depth in range(6):
        set_depth(detector, detector.stages, depth)
        trains = sum(p.numel() for p in detector.parameters() if p.requires_grad)
        assert own.trainable(depth) == trains
    assert own.layers[4] == ("blocks.5", "blocks.6")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, set()),
        ({"backbone": "vgg16_bn"}, {"train.unfreeze.drop_path"}),
        ({"backbone": "vgg16"}, {"train.unfreeze.drop_path", "train.unfreeze.batch_norm"}),
        ({"backbone": "convnext_tiny"}, {"train.unfreeze.batch_norm"}),
        ({"detector": "fcos_resnet50_fpn"}, {"model.backbone", "train.unfreeze.drop_path"}),
        (
            {"detector": "retinanet_resnet50_fpn"},
            {"model.backbone", "train.unfreeze.drop_path", "train.unfreeze.batch_norm"},
        ),
        (
            {"detector": "ssd300_vgg16"},
            {"model.backbone", "train.unfreeze.drop_path", "train.unfreeze.batch_norm"},
        ),
    ],
)
def test_fields_that_a_model_has_no_use_for_are_named(
    model: dict[str, str], expected: set[str]
) -> None:
    assert set(unused(TrainConfig.model_validate({"model": model}))) == expected
