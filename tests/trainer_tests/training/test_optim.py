"""The optimizer: all parameters in named groups; the average: of what trains, and nothing else."""

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
from trainer.training.optim import WeightAverage, ema_decay, report_groups
from trainer.training.optim import build as build_optimizer


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


@pytest.fixture
def trained(tiny_config: Callable[..., TrainConfig]) -> Detector:
    """A detector with one open stage."""
    built = build(tiny_config().model, classes=2)
    set_depth(built, built.stages, 1, adapt_statistics=True)
    return built


def values(detector: Detector) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in detector.state_dict().items()}


@torch.no_grad()
def change(detector: Detector) -> None:
    """What a step does: it changes the parameters and statistics that train."""
    for parameter in detector.parameters():
        if parameter.requires_grad:
            parameter.add_(1.0)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.training:
            assert module.running_mean is not None
            module.running_mean.add_(1.0)


def test_an_average_weighs_each_step_with_its_decay(trained: Detector) -> None:
    average = WeightAverage(trained)
    average.include_trainable()
    before = values(trained)
    for decay in (0.5, 0.75):
        change(trained)
        average.update(decay)
    raw = values(trained)
    with average.in_place_of_weights():
        averaged = values(trained)
    # 0.75 of the average of 0 and 1, and 0.25 of 2
    moved = {name for name, tensor in raw.items() if not torch.equal(tensor, before[name])}
    for name, tensor in averaged.items():
        expected = before[name] + 0.875 if name in moved else before[name]
        torch.testing.assert_close(tensor, expected)
    assert moved == {
        *(f"neck.{name}" for name, _ in trained.neck.named_parameters()),
        *(f"head.{name}" for name, _ in trained.head.named_parameters()),
        *(f"backbone.{name}" for name in trained.stages[-1].parameters),
        *(f"backbone.{n}" for n in trained.stages[-1].buffers if n.endswith("running_mean")),
    }


def test_weights_have_their_bits_and_memory_again_even_after_an_error(trained: Detector) -> None:
    average = WeightAverage(trained)
    average.include_trainable()
    change(trained)
    average.update(0.9)
    before = values(trained)
    places = [parameter.data_ptr() for parameter in trained.parameters()]
    with pytest.raises(MemoryError), average.in_place_of_weights():
        assert [parameter.data_ptr() for parameter in trained.parameters()] == places
        raise MemoryError
    assert all(torch.equal(before[name], t) for name, t in trained.state_dict().items())
    assert [parameter.data_ptr() for parameter in trained.parameters()] == places


def test_nothing_is_averaged_before_it_trains(trained: Detector) -> None:
    average = WeightAverage(trained)
    average.update(0.9)
    assert not average.state()
    before = values(trained)
    with average.in_place_of_weights():
        assert all(torch.equal(before[name], t) for name, t in trained.state_dict().items())


def test_the_average_of_a_stage_starts_when_it_opens(trained: Detector) -> None:
    average = WeightAverage(trained)
    average.include_trainable()
    change(trained)
    average.update(0.5)
    former = average.state()
    set_depth(trained, trained.stages, 2)
    average.include_trainable()
    opened = {f"backbone.{name}" for name in trained.stages[-2].parameters}
    now = average.state()
    assert now.keys() == former.keys() | opened
    assert all(torch.equal(now[name], former[name]) for name in former)
    assert all(torch.equal(now[name], trained.state_dict()[name]) for name in opened)


def test_tensors_of_two_names_have_one_average(trained: Detector) -> None:
    trained.head.again = trained.head.get_submodule("head")
    average = WeightAverage(trained)
    average.include_trainable()
    change(trained)
    average.update(0.5)
    raw, state = values(trained), average.state()
    again = WeightAverage(trained)
    again.load_state(state)
    with again.in_place_of_weights():
        assert all(torch.equal(trained.state_dict()[name], t) for name, t in state.items())
    assert all(torch.equal(raw[name], t) for name, t in trained.state_dict().items())
    assert any(name.startswith("head.again.") for name in state)


@pytest.mark.parametrize(
    ("step", "decay"), [(0, 0.1), (8, 0.5), (80, 0.9), (890, 0.99), (10**6, 0.99)]
)
def test_the_decay_rises_to_its_limit(step: int, decay: float) -> None:
    assert ema_decay(0.99, step) == pytest.approx(decay)
