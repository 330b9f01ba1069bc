"""The learning rate of each parameter group at every step."""

from collections.abc import Callable
from itertools import pairwise
from math import cos, pi
from typing import Any

import pytest
import torch

from trainer.config import Train, TrainConfig
from trainer.config_errors import parse
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.phases import Phase, plan
from trainer.training.lr_schedule import FINAL_FRACTION, lr_factor, peak_lr, set_step
from trainer.training.optim import build as build_optimizer
from trainer.training.optim import report_groups


@pytest.fixture(scope="module")
def detector(tiny_config: Callable[..., TrainConfig]) -> Detector:
    return build(tiny_config().model, classes=2)


def phases(stages: int = 5, **unfreeze: Any) -> list[Phase]:
    raw = {"lr": 0.1, "backbone_lr_ratio": 0.5, "weight_decay": 0.25, **unfreeze}
    return plan(parse(Train, {"head": {"epochs": 2, "lr": 0.4}, "unfreeze": raw}), stages)


def test_only_norms_and_biases_have_no_weight_decay(any_detector: Detector) -> None:
    optimizer = build_optimizer(any_detector, Train())
    stages = len(any_detector.stages)
    set_depth(any_detector, any_detector.stages, stages)
    set_step(optimizer, phases(stages, depth="all")[-1], 0.5, 0, 3)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    norms = (torch.nn.BatchNorm2d, torch.nn.GroupNorm)
    for module in any_detector.modules():
        for name, parameter in module.named_parameters(recurse=False):
            plain = name in ("bias", "scale_weight") or isinstance(module, norms)
            assert decay[id(parameter)] == (0.0 if plain else 0.25)


@pytest.mark.parametrize("depth", range(6))
def test_frozen_groups_have_no_learning_rate_and_no_trainable_parameters(
    detector: Detector, depth: int
) -> None:
    optimizer = build_optimizer(detector, Train())
    set_depth(detector, detector.stages, depth)
    set_step(optimizer, phases(depth=depth, schedule="at_once")[-1], 0.5, 1, 3)
    for name, group in report_groups(optimizer).items():
        frozen = name.startswith("stage") and int(name[5]) <= 5 - depth
        assert (group.lr == 0) == frozen
        assert (group.trainable == 0) == frozen


def test_the_backbone_has_its_fraction_of_the_learning_rate(detector: Detector) -> None:
    optimizer = build_optimizer(detector, Train())
    set_depth(detector, detector.stages, 5)
    set_step(optimizer, phases(depth=5)[-1], 0.5, 7, 3)
    report = report_groups(optimizer)
    assert report["stage1"].lr == report["stage5 no decay"].lr == report["head"].lr * 0.5 > 0
    assert report["neck"].lr == report["head"].lr


def rates(
    detector: Detector, phase: Phase, steps: int, optimizer: torch.optim.Optimizer | None = None
) -> list[float]:
    optimizer = optimizer or build_optimizer(detector, Train())
    set_depth(detector, detector.stages, phase.depth)
    rates = []
    for step in range(phase.epochs * steps):
        set_step(optimizer, phase, 0.5, step, steps)
        rates.append(report_groups(optimizer)["head"].lr)
    return rates


def test_the_rate_warms_up_then_falls_along_a_cosine_to_its_final_fraction(
    detector: Detector,
) -> None:
    (_, phase) = phases(schedule="at_once", epochs=3)
    measured = rates(detector, phase, steps=8)  # half an epoch is four steps
    cosine = [FINAL_FRACTION + (1 - FINAL_FRACTION) * (1 + cos(pi * i / 19)) / 2 for i in range(20)]
    expected = [0.1 * factor for factor in (0.2, 0.4, 0.6, 0.8, *cosine)]
    assert measured == pytest.approx(expected)


def test_the_rate_depends_only_on_the_phase(detector: Detector) -> None:
    *before, phase = phases(depth=2, epochs=6)
    used = build_optimizer(detector, Train())
    for earlier in before:
        rates(detector, earlier, 5, used)
    assert rates(detector, phase, 5, used) == rates(detector, phase, 5)


def test_equal_phases_at_different_epochs_have_equal_rates(detector: Detector) -> None:
    raw = {"lr": 0.1, "schedule": "at_once", "epochs": 3}
    later, earlier = (
        plan(parse(Train, {"head": {"epochs": head}, "unfreeze": raw}), 5)[-1] for head in (7, 0)
    )
    assert rates(detector, later, 4) == rates(detector, earlier, 4)


@pytest.mark.parametrize("total", range(1, 12))
@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
def test_warm_up_takes_at_most_half_of_any_phase(total: int, warmup: int) -> None:
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    peak = factors.index(max(factors))
    assert peak <= total // 2
    assert max(factors) == pytest.approx(1)
    assert min(factors) > 0
    assert all(a < b for a, b in pairwise(factors[: peak + 1]))
    assert all(a > b for a, b in pairwise(factors[peak:]))
    if total > 2:
        assert factors[-1] == pytest.approx(FINAL_FRACTION)


@pytest.mark.parametrize("depth", range(6))
def test_each_stage_has_its_fraction_of_the_rate_of_the_stage_above(
    any_detector: Detector, depth: int
) -> None:
    """Step by step through all phases, of every detector."""
    optimizer = build_optimizer(any_detector, Train())
    stages = len(any_detector.stages)
    for phase in phases(stages, depth=min(depth, stages), stage_lr_decay=0.5, epochs=4):
        set_depth(any_detector, any_detector.stages, phase.depth)
        for step in range(phase.epochs * 3):
            set_step(optimizer, phase, 0.5, step, 3)
            factor = lr_factor(step, phase.epochs * 3, round(0.5 * 3))
            for name, group in report_groups(optimizer).items():
                down = stages - int(name[5]) if name.startswith("stage") else None
                fraction = 1.0 if down is None else 0.5 * 0.5**down * (down < phase.depth)
                assert group.lr == pytest.approx(phase.lr * fraction * factor)


def test_stage_lr_decay_does_not_change_a_phase_with_one_trainable_stage() -> None:
    assert phases(depth=1, stage_lr_decay=0.5) == phases(depth=1)
    assert phases(depth=2, stage_lr_decay=0.5)[0] == phases(depth=2)[0]  # the head is shared


def test_every_phase_has_its_warm_up(detector: Detector) -> None:
    for phase in phases(depth=4, schedule="gradual", open_epochs=2, epochs=6):
        first, second, third, fourth, *_ = measured = rates(detector, phase, steps=8)
        assert first < second < third < fourth < max(measured) == pytest.approx(phase.lr)


def test_the_peak_of_a_group_follows_from_its_name() -> None:
    (*_, phase) = phases(depth=5, stage_lr_decay=0.5, schedule="at_once")
    assert peak_lr(phase, "head", 5) == peak_lr(phase, "neck no decay", 5) == phase.lr
    assert peak_lr(phase, "stage5", 5) == phase.lr * 0.5
    assert peak_lr(phase, "stage3 no decay", 5) == phase.lr * 0.5 * 0.25
