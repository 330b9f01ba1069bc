"""How long epochs will take, and whether keeping outputs pays."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.data.batches import batches
from trainer.data.dataset import Splits
from trainer.phases import Phase
from trainer.training import frozen_features, probe
from trainer.training.engine import Diverged
from trainer.training.frozen_features import outputs_folder
from trainer.training.probe import choose_trunk_cache, memory_share, time_epochs

Make = Callable[..., Any]
AUTO = {"train.trunk_cache": "auto", "train.unfreeze.depth": 2}


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps take a second, a stage of depth another one, and a picture of val 10; holds the threads
    with which each was run."""
    threads: list[int] = []

    def step(self: object, phase: Phase, kept: object, now: object) -> float:
        threads.append(torch.get_num_threads())
        return 1.0 + phase.depth

    monkeypatch.setattr(probe._Probe, "_step", step)
    monkeypatch.setattr(probe._Probe, "_picture", lambda *_: 10.0)
    return threads


@pytest.mark.parametrize(("batch_size", "steps"), [(4, 3), (5, 3), (12, 1)])
def test_an_epoch_takes_all_of_its_steps_and_val(
    tiny: Splits, tiny_config: Make, steady: list[int], batch_size: int, steps: int
) -> None:
    sizes = {f"train.{phase}.batch_size": batch_size for phase in ("head", "unfreeze")}
    found = time_epochs(tiny_config({"train.unfreeze.depth": "all", **sizes}), tiny, threads=2)
    assert (found.head, found.unfrozen) == (steps + 60, 6 * steps + 60)
    assert steady == [2, 2] and torch.get_num_threads() == 1


def test_without_a_head_phase_the_first_phase_is_timed(
    tiny: Splits, tiny_config: Make, steady: list[int]
) -> None:
    slowly = {"depth": 4, "schedule": "gradual", "open_epochs": 2, "epochs": 3}
    found = time_epochs(
        tiny_config({"train.head": {"epochs": 0}, "train.unfreeze": slowly | {"batch_size": 4}}),
        tiny,
        1,
    )
    assert (found.head, found.unfrozen) == (3 * 3 + 60, 3 * 5 + 60)


def test_kept_outputs_are_timed_where_they_are_used(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []

    def spy(*own: Any, outputs: Any, **named: Any) -> Any:
        used.append(outputs is not None)
        return batches(*own, outputs=outputs, **named)

    monkeypatch.setattr(probe, "batches", spy)
    config = tiny_config({"train.trunk_cache": 2, "train.unfreeze.depth": "all"})
    found = time_epochs(config, tiny, 1)
    assert found.head > 0 and found.unfrozen > 0
    assert used == [True, False]


@pytest.mark.parametrize(
    ("gains", "setting"), [([1.9, 1.2, 1.1], 1), ([1.1], "off"), ([2.0] * 5, 4)]
)
def test_outputs_are_kept_as_deep_as_it_pays(
    tiny: Splits,
    tiny_config: Make,
    monkeypatch: pytest.MonkeyPatch,
    gains: list[float],
    setting: int | str,
) -> None:
    measured = iter(gains)
    monkeypatch.setattr(probe._Probe, "gain", lambda self, phase, kept: next(measured))
    choice = choose_trunk_cache(tiny_config(AUTO), tiny, 1)
    assert choice.setting == setting
    for gain in gains:
        assert f"{gain:.1f}" in choice.text


def test_a_measurement_decides(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(outputs_folder().glob("*"))
    monkeypatch.setattr(probe, "ROUNDS", 1)
    monkeypatch.setattr(probe, "GAIN", 0.0)
    assert choose_trunk_cache(tiny_config(AUTO), tiny, 1).setting == 4
    monkeypatch.setattr(probe, "GAIN", 1000.0)
    choice = choose_trunk_cache(tiny_config(AUTO), tiny, 1)
    assert choice.setting == "off"
    assert "not kept: they would make a phase of depth 0" in choice.text
    assert sorted(outputs_folder().glob("*")) == before


@pytest.mark.parametrize("written", ["auto", 2])
def test_a_small_disk_turns_it_off_with_one_line(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch, written: int | str
) -> None:
    monkeypatch.setattr(probe, "no_room", lambda folder, wanted: f"{wanted} bytes are too many")
    choice = choose_trunk_cache(tiny_config(AUTO | {"train.trunk_cache": written}), tiny, 1)
    assert choice.setting == "off"
    # three levels in fp32, twice 12 pictures of train and 6 of val
    wanted = 4 * (40 * 12**2 + 112 * 6**2 + 320 * 3**2) * (2 * 12 + 6)
    assert choice.text.endswith(f"not kept: {wanted} bytes are too many")
    assert "\n" not in choice.text


def test_room_is_under_a_cap_and_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "not" / "there"
    assert frozen_features.no_room(missing, 1000) == ""
    assert "of at most 20" in frozen_features.no_room(missing, 10**11)
    monkeypatch.setattr(frozen_features, "SHARE", 0.0)
    assert "free, of which" in frozen_features.no_room(missing, 1000)


def test_what_is_there_takes_no_room_from_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(frozen_features.shutil, "disk_usage", lambda place: disk)
    assert frozen_features.no_room(tmp_path, 600)
    (tmp_path / "a-0.npy").write_bytes(bytes(200))
    assert not frozen_features.no_room(tmp_path, 600)


def test_a_written_depth_is_cut_to_what_has_room(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []

    def no_room(folder: Path, size: int) -> str:
        wanted.append(size)
        return "they are too many" if len(wanted) > 1 else ""

    monkeypatch.setattr(probe, "no_room", no_room)
    choice = choose_trunk_cache(tiny_config({"train.trunk_cache": 3}), tiny, 1)
    assert choice.setting == 0 and not choice.gains
    assert "kept to depth 0" in choice.text
    assert choice.text.endswith("; not deeper: they are too many")


@pytest.mark.parametrize("error", [Diverged("the loss"), torch.OutOfMemoryError("no room\nmore")])
def test_a_measurement_that_fails_ends_no_search(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: object, phase: object, kept: object) -> float:
        raise error

    monkeypatch.setattr(probe._Probe, "gain", fail)
    choice = choose_trunk_cache(tiny_config(AUTO), tiny, 1)
    assert choice.setting == "off"
    assert choice.text.endswith(str(error).splitlines()[0])


def test_a_measurement_that_loses_its_gpu_settles_nothing(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> float:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(probe, "_choose", fail)
    monkeypatch.setattr(probe, "_Probe", lambda *_: None)
    with pytest.raises(torch.AcceleratorError):
        choose_trunk_cache(tiny_config(AUTO), tiny, 1)
    monkeypatch.setattr(probe, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(probe, "_memory_share", fail)
    with pytest.raises(torch.AcceleratorError):
        memory_share(tiny_config(), tiny, 1)


@pytest.mark.parametrize("written", [3, "off"])
def test_what_is_written_is_not_measured(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch, written: int | str
) -> None:
    monkeypatch.setattr(probe._Probe, "seconds", None)
    choice = choose_trunk_cache(tiny_config({"train.trunk_cache": written}), tiny, 1)
    assert (choice.setting, choice.text) == (written, "")


def test_a_cpu_has_no_memory_of_its_own(tiny: Splits, tiny_config: Make) -> None:
    assert memory_share(tiny_config(), tiny, 1) == 0


def test_where_steps_fail_all_of_a_gpu_is_taken(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(probe, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(probe, "_memory_share", too_large)
    assert memory_share(tiny_config(), tiny, 1) == 1
