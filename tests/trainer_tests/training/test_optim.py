"""The optimizer: all parameters in named groups."""

from collections.abc import Callable
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainer.config import Train, TrainConfig
from trainer.config_errors import parse
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.training.optim import build as build_optimizer
from trainer.training.optim import report_groups


@pytest.fixture(scope="module")
def detector(tiny_config: Callable[..., TrainConfig]) -> Detector:
    return build(tiny_config().model, classes=2)


def test_every_parameter_is_in_exactly_one_group(any_detector: Detector) -> None:
    groups = build_optimizer(any_detector, Train()).param_groups
    grouped = [id(p) for p in chain.from_iterable(group["params"] for group in groups)]
    assert sorted(grouped) == sorted(id(p) for p in any_detector.parameters())


def test_groups_are_named_after_stages_neck_and_head(detector: Detector) -> None:
    names = {group["name"] for group in build_optimizer(detector, Train()).param_groups}
    assert {name.removesuffix(" no decay") for name in names} == (
        {"stage1", "stage2", "stage3", "stage4", "stage5", "neck", "head"}
    )


def test_the_report_counts_every_trainable_parameter(detector: Detector) -> None:
    optimizer = build_optimizer(detector, Train())
    set_depth(detector, detector.stages, 2)
    counted = sum(group.trainable for group in report_groups(optimizer).values())
    assert counted == sum(p.numel() for p in detector.parameters() if p.requires_grad)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_has_the_momentum_of_the_config(detector: Detector, momentum: float) -> None:
    optimizer = build_optimizer(detector, Train(optimizer="sgd", momentum=momentum))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {momentum}


def changed(detector: Detector, **parts: Any) -> Any:
    """A detector with some parts replaced."""
    names = ("backbone", "stages", "neck", "head", "mean")
    return SimpleNamespace(**{name: getattr(detector, name) for name in names} | parts)


def test_no_group_is_empty(detector: Detector) -> None:
    bare = changed(detector, neck=torch.nn.Conv2d(1, 1, 1, bias=False))
    optimizer = build_optimizer(bare, Train())
    assert "neck" in report_groups(optimizer)
    assert "neck no decay" not in report_groups(optimizer)


@pytest.mark.parametrize(
    ("on_gpu", "precision", "fused"),
    [(True, "bf16", True), (True, "fp32", True), (True, "fp16", False), (False, "fp32", False)],
)
def test_sgd_is_fused_on_a_gpu_unless_a_scaler_skips_steps(
    detector: Detector, on_gpu: bool, precision: str, fused: bool
) -> None:
    placed = changed(detector, mean=SimpleNamespace(is_cuda=on_gpu))
    train = parse(Train, {"optimizer": "sgd", "precision": precision})
    assert build_optimizer(placed, train).defaults["fused"] is fused


def test_adamw_is_the_default(detector: Detector) -> None:
    assert isinstance(build_optimizer(detector, Train()), torch.optim.AdamW)
