"""Outlines: the sizes of a detector's parts, and the settings it has no use for."""

import pytest

from trainer.config import Model, TrainConfig
from trainer.model.detectors import build
from trainer.model.freezing import set_depth
from trainer.model.outline import count_stages, outline, unused_settings

SIZE = 64


def test_an_outline_counts_what_trains_at_each_depth() -> None:
    parts = outline(Model(weights="none", image_size=SIZE), classes=2)
    detector = build(Model(weights="none", image_size=SIZE), 2)
    for depth in range(6):
        set_depth(detector, detector.stages, depth)
        trains = sum(p.numel() for p in detector.parameters() if p.requires_grad)
        assert parts.trainable(depth) == trains
    assert parts.layers[4] == ("blocks.5", "blocks.6")


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        (Model(), 5),
        (Model(backbone="convnext_tiny"), 4),
        (Model(detector="retinanet_resnet50_fpn_v2", weights="coco"), 5),
    ],
)
def test_stages_are_counted_of_either_kind_of_detector(model: Model, stages: int) -> None:
    assert count_stages(model) == stages


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
def test_settings_without_effect_are_named(model: dict[str, str], expected: set[str]) -> None:
    assert set(unused_settings(TrainConfig.model_validate({"model": model}))) == expected
