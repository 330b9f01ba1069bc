"""Detectors: losses to learn from, whatever the targets; weights of exports; anchors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from trainer.config import InputError, Model
from trainer.data.dataset import Category
from trainer.evaluation.predict import predict
from trainer.model.detectors import HEADS, Detector, HeadConfig, build
from trainer.model.freezing import set_depth
from trainer.model.heads import SSDFromPyramid

from .small_detectors import DETECTORS, SIZE, new, pictures, shared, target


@pytest.fixture(params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> Detector:
    return shared(request.param)


def learn(detector: Detector, *targets: dict[str, Tensor]) -> dict[str, Tensor]:
    set_depth(detector, detector.stages, 1)
    detector.zero_grad()
    losses: dict[str, Tensor] = detector(pictures(len(targets)), list(targets))
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
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


def test_names_begin_with_backbone_neck_and_head(detector: Detector) -> None:
    assert {name.split(".")[0] for name in detector.state_dict()} == {"backbone", "neck", "head"}


def test_equal_seeds_give_equal_detectors() -> None:
    one, two = new("retinanet").state_dict(), new("retinanet").state_dict()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_all_tensors_of_an_export_that_fit_are_loaded(tmp_path: Path) -> None:
    earlier = new("retinanet").state_dict()
    save_file({n: t.contiguous() for n, t in earlier.items()}, tmp_path / "model.safetensors")
    model = Model(weights=str(tmp_path), image_size=SIZE)
    for classes, fresh in ((2, set()), (3, {"cls_logits.weight", "cls_logits.bias"})):
        state = build(model, classes).state_dict()
        shapes = {n for n in state if state[n].shape != earlier[n].shape}
        assert {".".join(n.split(".")[-2:]) for n in shapes} == fresh
        assert all(torch.equal(state[n], earlier[n]) for n in state.keys() - shapes)


@pytest.mark.parametrize(
    ("name", "deeper"), [("resnet18", "resnet34"), ("convnext_tiny", "convnext_small")]
)
def test_a_deeper_models_export_is_refused_with_its_unexpected_tensors(
    tmp_path: Path, name: str, deeper: str
) -> None:
    state = build(Model(backbone=deeper, weights="none", image_size=SIZE), 2).state_dict()
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "model.safetensors")
    with pytest.raises(
        InputError, match=rf"does not fit {name}: the model has no \w+\.\S+, .* more; "
    ):
        build(Model(backbone=name, weights=str(tmp_path), image_size=SIZE), 2)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_small_object_on_the_canvas_can_be_learned(name: str) -> None:
    """A few steps on one picture lower the sum of the losses, and for RetinaNet both of them."""
    detector = new(name)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    before = learn(detector, target(1))
    for _ in range(5):
        learn(detector, target(1))
        optimizer.step()
    after = learn(detector, target(1))
    assert sum(after.values()) < sum(before.values())
    assert name != "retinanet" or all(after[loss] < before[loss] for loss in before)


def test_the_pyramid_has_its_strides_even_on_a_backbone_without_padding() -> None:
    model = Model(backbone="inception_v3", weights="none", image_size=96)
    with torch.device("meta"):
        detector = build(model, 2).eval()
        levels = detector.features(torch.empty(1, 3, 96, 96, dtype=torch.uint8))
    assert [level.shape[-1] for level in levels.values()] == [12, 6, 3, 2, 1]


@pytest.mark.parametrize("ids", [(0, 5, 17), (1,), tuple(range(90))])
@pytest.mark.parametrize("name", DETECTORS)
def test_category_ids_come_out_as_they_went_in(name: str, ids: tuple[int, ...]) -> None:
    """Ids with gaps, a single one, and ninety."""
    categories = tuple(Category(i, f"class {i}") for i in ids)
    detector = shared(name, len(ids)).eval()
    picture = Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        (detections,) = detector(pictures(1))
    boxes = predict(detector, categories, picture, SIZE, threshold=0.0)
    assert len(boxes) == len(detections["labels"]) > 0
    assert [box.category.id for box in boxes] == [ids[label - 1] for label in detections["labels"]]


@pytest.mark.parametrize("size", [64, 128, 320, 640])
@pytest.mark.parametrize("name", DETECTORS)
def test_anchors_grow_with_the_canvas(name: str, size: int) -> None:
    """The smallest is a fraction of the canvas, but not below what a map can resolve."""
    head: Any = HEADS[name](HeadConfig(2, size))
    generator = head.rpn.anchor_generator if name == "faster_rcnn" else head.anchor_generator
    levels = [torch.empty(1, 1, max(1, size // s), max(1, size // s)) for s in (8, 16, 32, 64, 128)]
    anchors = generator(ImageList(torch.empty(1, 3, size, size), [(size, size)]), levels)[0]
    smallest = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1).sqrt().min().item()
    expected = max(size / 40, 8) if name == "fcos" else max(size / 16, 20)
    assert smallest == pytest.approx(expected, rel=0.05)
