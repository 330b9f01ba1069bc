"""Parameter groups, and the learning rate of each at every step."""

from collections.abc import Callable
from itertools import chain, pairwise
from math import cos, pi
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from trainer.config import CocoDetector, Model, NewDetector, Train, TrainConfig, parse
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.phases import Phase, plan
from trainer.training.optim import FLOOR, lr_factor, peak, report_groups, set_step
from trainer.training.optim import build as build_optimizer


@pytest.fixture(scope="module")
def detector(tiny_config: Callable[..., TrainConfig]) -> Detector:
    return build(tiny_config().model, classes=2)


@pytest.fixture(
    scope="module",
    params=[
        *get_args(NewDetector),
        "ssdlite320_mobilenet_v3_large",
        "ssd300_vgg16",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in get_args(CocoDetector)
            if not name.startswith("ssd")
        ),
    ],
)
def any_detector(request: pytest.FixtureRequest) -> Detector:
    return build(Model(detector=request.param, weights="none", image_size=320), classes=2)


def phases(stages: int = 5, **unfreeze: Any) -> list[Phase]:
    raw = {"lr": 0.1, "backbone_lr_ratio": 0.5, "weight_decay": 0.25, **unfreeze}
    return plan(parse(Train, {"head": {"epochs": 2, "lr": 0.4}, "unfreeze": raw}), stages)


def test_every_parameter_is_in_exactly_one_group(any_detector: Detector) -> None:
    groups = build_optimizer(any_detector, Train()).param_groups
    held = [id(p) for p in chain.from_iterable(group["params"] for group in groups)]
    assert sorted(held) == sorted(id(p) for p in any_detector.parameters())


def test_groups_are_named_after_stages_neck_and_head(detector: Detector) -> None:
    names = {group["name"] for group in build_optimizer(detector, Train()).param_groups}
    assert {name.removesuffix(" no decay") for name in names} == (
        {"stage1", "stage2", "stage3", "stage4", "stage5", "neck", "head"}
    )


def test_norms_and_biases_have_no_decay_and_all_else_has(any_detector: Detector) -> None:
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
def test_frozen_groups_report_no_rate_and_nothing_trainable(detector: Detector, depth: int) -> None:
    optimizer = build_optimizer(detector, Train())
    set_depth(detector, detector.stages, depth)
    set_step(optimizer, phases(depth=depth, schedule="at_once")[-1], 0.5, 1, 3)
    for name, group in report_groups(optimizer).items():
        frozen = name.startswith("stage") and int(name[5]) <= 5 - depth
        assert (group.lr == 0) == frozen
        assert (group.trainable == 0) == frozen


def test_the_report_counts_every_trainable_parameter(detector: Detector) -> None:
    optimizer = build_optimizer(detector, Train())
    set_depth(detector, detector.stages, 2)
    counted = sum(group.trainable for group in report_groups(optimizer).values())
    assert counted == sum(p.numel() for p in detector.parameters() if p.requires_grad)


def test_the_backbone_has_its_share_of_the_rate(detector: Detector) -> None:
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
    found = []
    for step in range(phase.epochs * steps):
        set_step(optimizer, phase, 0.5, step, steps)
        found.append(report_groups(optimizer)["head"].lr)
    return found


def test_the_rate_warms_up_then_falls_along_a_cosine_to_the_floor(detector: Detector) -> None:
    (_, phase) = phases(schedule="at_once", epochs=3)
    found = rates(detector, phase, steps=8)  # half an epoch is four steps
    cosine = [FLOOR + (1 - FLOOR) * (1 + cos(pi * i / 19)) / 2 for i in range(20)]
    expected = [0.1 * factor for factor in (0.2, 0.4, 0.6, 0.8, *cosine)]
    assert found == pytest.approx(expected)


def test_the_rate_depends_on_the_phase_alone(detector: Detector) -> None:
    *before, phase = phases(depth=2, epochs=6)
    used = build_optimizer(detector, Train())
    for earlier in before:
        rates(detector, earlier, 5, used)
    assert rates(detector, phase, 5, used) == rates(detector, phase, 5)


def test_equal_phases_at_other_epochs_have_equal_rates(detector: Detector) -> None:
    raw = {"lr": 0.1, "schedule": "at_once", "epochs": 3}
    late, early = (
        plan(parse(Train, {"head": {"epochs": head}, "unfreeze": raw}), 5)[-1] for head in (7, 0)
    )
    assert rates(detector, late, 4) == rates(detector, early, 4)


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
        assert factors[-1] == pytest.approx(FLOOR)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_takes_its_momentum(detector: Detector, momentum: float) -> None:
    optimizer = build_optimizer(detector, Train(optimizer="sgd", momentum=momentum))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {momentum}


def changed(detector: Detector, **parts: Any) -> Any:
    """What an optimizer is built of, with other parts."""
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


@pytest.mark.parametrize("depth", range(6))
def test_each_stage_down_learns_at_its_share_of_the_one_above(
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
                share = 1.0 if down is None else 0.5 * 0.5**down * (down < phase.depth)
                assert group.lr == pytest.approx(phase.lr * share * factor)


def test_where_one_stage_trains_the_decay_below_it_makes_no_other_phase() -> None:
    assert phases(depth=1, stage_lr_decay=0.5) == phases(depth=1)
    assert phases(depth=2, stage_lr_decay=0.5)[0] == phases(depth=2)[0]  # the head is shared


def test_all_warms_up_anew_wherever_a_stage_opens(detector: Detector) -> None:
    for phase in phases(depth=4, schedule="gradual", open_epochs=2, epochs=6):
        found = rates(detector, phase, steps=8)
        assert found[0] < found[1] < found[2] < found[3] < max(found) == pytest.approx(phase.lr)


def test_the_peak_of_a_group_is_told_by_its_name() -> None:
    (*_, phase) = phases(depth=5, stage_lr_decay=0.5, schedule="at_once")
    assert peak(phase, "head", 5) == peak(phase, "neck no decay", 5) == phase.lr
    assert peak(phase, "stage5", 5) == phase.lr * 0.5
    assert peak(phase, "stage3 no decay", 5) == phase.lr * 0.5 * 0.25
