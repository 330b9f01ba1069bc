"""The time of an epoch, the GPU memory of a trial, and whether cached features have a gain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.data.batches import batches
from trainer.data.dataset import Splits
from trainer.phases import Phase
from trainer.training import probe
from trainer.training.engine import DivergedError
from trainer.training.feature_files import features_folder
from trainer.training.probe import choose_cache_depth, gpu_memory_fraction, time_epochs

Make = Callable[..., Any]


AUTO = {"train.trunk_cache": "auto", "train.unfreeze.depth": 2}


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A step takes one second and one more for each unfrozen stage, a picture of val 10 seconds.

    The value collects the number of torch threads at each step.
    """
    threads: list[int] = []

    def step(self: object, phase: Phase, features: object, now: object) -> float:
        threads.append(torch.get_num_threads())
        return 1.0 + phase.depth

    monkeypatch.setattr(probe._Probe, "_step_seconds", step)
    monkeypatch.setattr(probe._Probe, "_picture_seconds", lambda *_: 10.0)
    return threads


@pytest.mark.parametrize(("batch_size", "steps"), [(4, 3), (5, 3), (12, 1)])
def test_an_epoch_is_all_of_its_steps_and_val(
    tiny: Splits, tiny_config: Make, steady: list[int], batch_size: int, steps: int
) -> None:
    sizes = {f"train.{phase}.batch_size": batch_size for phase in ("head", "unfreeze")}
    timing = time_epochs(tiny_config({"train.unfreeze.depth": "all", **sizes}), tiny, threads=2)
    assert (timing.head, timing.unfrozen) == (steps + 60, 6 * steps + 60)
    assert steady == [2, 2] and torch.get_num_threads() == 1


def test_without_a_head_phase_the_first_phase_is_timed(
    tiny: Splits, tiny_config: Make, steady: list[int]
) -> None:
    gradual = {"depth": 4, "schedule": "gradual", "open_epochs": 2, "epochs": 3}
    timing = time_epochs(
        tiny_config({"train.head": {"epochs": 0}, "train.unfreeze": gradual | {"batch_size": 4}}),
        tiny,
        1,
    )
    assert (timing.head, timing.unfrozen) == (3 * 3 + 60, 3 * 5 + 60)


def test_cached_features_are_timed_in_the_phases_that_use_them(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []

    def spy(*arguments: Any, features: Any, **named: Any) -> Any:
        used.append(features is not None)
        return batches(*arguments, features=features, **named)

    monkeypatch.setattr(probe, "batches", spy)
    config = tiny_config({"train.trunk_cache": 2, "train.unfreeze.depth": "all"})
    timing = time_epochs(config, tiny, 1)
    assert timing.head > 0 and timing.unfrozen > 0
    assert used == [True, False]


@pytest.mark.parametrize(
    ("speedups", "setting"), [([1.9, 1.2, 1.1], 1), ([1.1], "off"), ([2.0] * 5, 4)]
)
def test_features_are_cached_as_deep_as_they_have_a_gain(
    tiny: Splits,
    tiny_config: Make,
    monkeypatch: pytest.MonkeyPatch,
    speedups: list[float],
    setting: int | str,
) -> None:
    measured = iter(speedups)
    monkeypatch.setattr(probe._Probe, "speedup", lambda self, phase, features: next(measured))
    choice = choose_cache_depth(tiny_config(AUTO), tiny, 1)
    assert choice.setting == setting
    for gain in speedups:
        assert f"{gain:.1f}" in choice.text


def test_the_measured_gain_decides(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(features_folder().glob("*"))
    monkeypatch.setattr(probe, "ROUNDS", 1)
    monkeypatch.setattr(probe, "MIN_SPEEDUP", 0.0)
    assert choose_cache_depth(tiny_config(AUTO), tiny, 1).setting == 4
    monkeypatch.setattr(probe, "MIN_SPEEDUP", 1000.0)
    choice = choose_cache_depth(tiny_config(AUTO), tiny, 1)
    assert choice.setting == "off"
    assert "not cached: they would make a phase of depth 0" in choice.text
    assert sorted(features_folder().glob("*")) == before


@pytest.mark.parametrize("setting", ["auto", 2])
def test_a_small_disk_turns_the_cache_off_with_one_line(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch, setting: int | str
) -> None:
    monkeypatch.setattr(
        probe, "space_problem", lambda folder, wanted: f"{wanted} bytes are too many"
    )
    choice = choose_cache_depth(tiny_config(AUTO | {"train.trunk_cache": setting}), tiny, 1)
    assert choice.setting == "off"
    # three levels in fp32, twice 12 pictures of train and 6 of val
    wanted = 4 * (40 * 12**2 + 112 * 6**2 + 320 * 3**2) * (2 * 12 + 6)
    assert choice.text.endswith(f"not cached: {wanted} bytes are too many")
    assert "\n" not in choice.text


def test_the_depth_of_the_user_is_limited_to_the_room(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []

    def space_problem(folder: Path, size: int) -> str:
        wanted.append(size)
        return "they are too many" if len(wanted) > 1 else ""

    monkeypatch.setattr(probe, "space_problem", space_problem)
    choice = choose_cache_depth(tiny_config({"train.trunk_cache": 3}), tiny, 1)
    assert choice.setting == 0 and not choice.speedups
    assert "cached to depth 0" in choice.text
    assert choice.text.endswith("; not deeper: they are too many")


@pytest.mark.parametrize(
    "error", [DivergedError("the loss"), torch.OutOfMemoryError("no room\nmore")]
)
def test_a_measurement_that_fails_turns_the_cache_off(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: object, phase: object, features: object) -> float:
        raise error

    monkeypatch.setattr(probe._Probe, "speedup", fail)
    choice = choose_cache_depth(tiny_config(AUTO), tiny, 1)
    assert choice.setting == "off"
    assert choice.text.endswith(str(error).splitlines()[0])


def test_a_measurement_that_loses_its_gpu_raises(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> float:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(probe, "_choose", fail)
    monkeypatch.setattr(probe, "_Probe", lambda *_: None)
    with pytest.raises(torch.AcceleratorError):
        choose_cache_depth(tiny_config(AUTO), tiny, 1)
    monkeypatch.setattr(probe, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(probe, "_memory_fraction", fail)
    with pytest.raises(torch.AcceleratorError):
        gpu_memory_fraction(tiny_config(), tiny, 1)


@pytest.mark.parametrize("setting", [3, "off"])
def test_the_setting_of_the_user_is_not_measured(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch, setting: int | str
) -> None:
    monkeypatch.setattr(probe._Probe, "epoch_seconds", None)
    choice = choose_cache_depth(tiny_config({"train.trunk_cache": setting}), tiny, 1)
    assert (choice.setting, choice.text) == (setting, "")


def test_the_memory_fraction_of_a_cpu_is_0(tiny: Splits, tiny_config: Make) -> None:
    assert gpu_memory_fraction(tiny_config(), tiny, 1) == 0


def test_the_memory_fraction_is_1_if_the_steps_fail(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(probe, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(probe, "_memory_fraction", too_large)
    assert gpu_memory_fraction(tiny_config(), tiny, 1) == 1
