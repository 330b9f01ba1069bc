"""Finished phases: identified by what they depend on, stored and forked completely."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
import torch

from trainer.config import TrainConfig
from trainer.model.checkpoint import BEST, LAST, load, save
from trainer.phases import plan
from trainer.training import environment, phase_cache
from trainer.training.phase_cache import PhaseCache, phase_digests, phase_settings

CPU = torch.device("cpu")


MakeConfig = Callable[..., TrainConfig]


def head_key(config: TrainConfig) -> str:
    return phase_settings(config, plan(config.train, 5)[:1])


def head_digest(config: TrainConfig, data: str = "data", start: str = "start") -> str:
    (digest,) = phase_digests(config, plan(config.train, 5)[:1], data, start, CPU)
    return digest


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    return write_trial(tmp_path / "trial")


def write_trial(folder: Path) -> Path:
    save({"model": {"a": torch.ones(3)}, "reports": [{"epoch": 1, "forked": False}]}, folder / LAST)
    save({"model": {"a": torch.ones(3)}, "report": 1}, folder / BEST)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> PhaseCache:
    return PhaseCache(tmp_path / "phases")


@pytest.mark.parametrize(
    "later",
    [
        {"train.unfreeze.depth": 1},
        {"train.unfreeze.lr": 0.5},
        {"train.unfreeze.batch_size": 2},
        {"train.unfreeze.epochs": 9},
        {"train.unfreeze.schedule": "at_once"},
        {"train.unfreeze.weight_decay": 0.5},
        {"train.unfreeze.batch_norm": "adapt"},
        {"train.trunk_cache": "auto"},
        {"train.ema": 0.99},
    ],
)
def test_trials_that_differ_after_the_head_phase_share_it(
    tiny_config: MakeConfig, later: dict[str, Any]
) -> None:
    assert head_key(tiny_config(later)) == head_key(tiny_config())
    assert head_digest(tiny_config(later)) == head_digest(tiny_config())


def test_the_default_of_detections_is_not_in_the_key(tiny_config: MakeConfig) -> None:
    assert "detections" not in head_key(tiny_config())
    assert head_key(tiny_config({"model.detections": 100})) == head_key(tiny_config())


@pytest.mark.parametrize(
    "earlier",
    [
        {"model.detector": "faster_rcnn"},
        {"model.backbone": "resnet18"},
        {"model.weights": "imagenet"},
        {"model.image_size": 128},
        {"model.detections": 300},  # it decides which epoch is the best
        {"train.seed": 1},
        {"train.trunk_cache": 0},
        {"train.precision": "bf16"},
        {"train.optimizer": "sgd"},
        {"train.augment": "none"},
        {"train.warmup_epochs": 1.0},
        {"train.clip_norm": 1.0},
        {"train.head.lr": 0.5},
        {"train.head.epochs": 1},
        {"train.head.batch_size": 2},
        {"train.head.weight_decay": 0.5},
    ],
)
def test_trials_that_differ_in_the_head_phase_do_not_share_it(
    tiny_config: MakeConfig, earlier: dict[str, Any]
) -> None:
    assert head_key(tiny_config(earlier)) != head_key(tiny_config())


def test_trials_with_other_averages_share_no_unfreeze_phase(tiny_config: MakeConfig) -> None:
    keys = {
        phase_settings(config, plan(config.train, 5)[:2])
        for ema in ("off", 0.9, 0.99)
        for config in [tiny_config({"train.ema": ema})]
    }
    assert len(keys) == 3


def test_every_phase_has_a_different_key(tiny_config: MakeConfig) -> None:
    config = tiny_config()
    phases = plan(config.train, 5)
    keys = {phase_settings(config, phases[: i + 1]) for i in range(len(phases))}
    assert len(keys) == len(phases)


def test_other_data_or_threads_give_another_phase(tiny_config: MakeConfig) -> None:
    config = tiny_config()
    one = head_digest(config)
    assert head_digest(config) == one
    assert head_digest(config, "other data") != one
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert head_digest(config) != one
    finally:
        torch.set_num_threads(threads)


def test_the_tensors_of_the_weights_count_and_not_their_file(tiny_config: MakeConfig) -> None:
    one, other = (tiny_config({"model.weights": f"{name}.pth"}) for name in ("a", "b"))
    assert head_digest(one) == head_digest(other)
    assert head_digest(one, start="other") != head_digest(one)


def test_another_environment_gives_another_phase(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    seen = {head_digest(config)}
    monkeypatch.setattr(environment, "version", lambda name: f"{name} of tomorrow")
    seen.add(head_digest(config))
    monkeypatch.setattr(environment, "_code_digest", lambda: "other code")
    seen.add(head_digest(config))
    capabilities = torch.cpu.get_capabilities()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**capabilities, "amx_bf16": None})
    seen.add(head_digest(config))
    assert len(seen) == 4


def test_a_fork_has_the_stored_tensors_and_reports_the_fork(
    cache: PhaseCache, trial: Path, tmp_path: Path
) -> None:
    cache.publish("key", trial)
    fork = tmp_path / "fork"
    checkpoint = cache.fork("key", fork)
    assert checkpoint and checkpoint["reports"] == [{"epoch": 1, "forked": True}]
    forked = load(fork / LAST)
    assert forked["reports"] == checkpoint["reports"]
    assert torch.equal(forked["model"]["a"], torch.ones(3))
    assert (fork / BEST).read_bytes() == (trial / BEST).read_bytes()


def test_a_missing_phase_gives_no_fork_and_no_folder(cache: PhaseCache, tmp_path: Path) -> None:
    assert cache.fork("key", tmp_path / "fork") is None
    assert not (tmp_path / "fork").exists()


def test_the_first_stored_phase_stays(cache: PhaseCache, trial: Path) -> None:
    cache.publish("key", trial)
    before = (cache.folder / "key" / LAST).read_bytes()
    save({"model": {}, "reports": [2]}, trial / LAST)
    cache.publish("key", trial)
    assert (cache.folder / "key" / LAST).read_bytes() == before
    assert [entry.name for entry in cache.folder.iterdir()] == ["key"]


@pytest.mark.parametrize("name", [LAST, BEST])
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda file: os.truncate(file, 0),
        lambda file: os.truncate(file, file.stat().st_size // 2),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    ],
    ids=["gone", "empty", "truncated", "flipped"],
)
def test_a_damaged_phase_is_deleted_and_can_be_stored_again(
    cache: PhaseCache, trial: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    cache.publish("key", trial)
    damage(cache.folder / "key" / name)
    assert cache.fork("key", tmp_path / "fork") is None
    assert not (cache.folder / "key").exists()
    assert not (tmp_path / "fork").exists()
    cache.publish("key", write_trial(tmp_path / "another"))
    assert cache.fork("key", tmp_path / "fork")


def test_a_phase_that_is_evicted_meanwhile_gives_no_fork(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.publish("key", trial)

    def load_and_lose(file: Path) -> Any:
        checkpoint = load(file)
        if file.name == BEST:
            rmtree(file.parent)
        return checkpoint

    monkeypatch.setattr(phase_cache, "load", load_and_lose)
    assert cache.fork("key", tmp_path / "fork") is None
    assert not (tmp_path / "fork" / LAST).exists()


def test_a_phase_that_is_unreadable_for_a_moment_stays(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.publish("key", trial)

    def fail(file: Path) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(phase_cache, "load", fail)
    assert cache.fork("key", tmp_path / "fork") is None
    monkeypatch.undo()
    assert cache.fork("key", tmp_path / "fork")


def test_a_phase_that_fails_to_be_stored_leaves_nothing(cache: PhaseCache, trial: Path) -> None:
    (trial / BEST).unlink()
    with pytest.raises(OSError):
        cache.publish("key", trial)
    assert not list(cache.folder.iterdir())


def test_phases_of_other_searches_are_used_and_not_changed(
    cache: PhaseCache, trial: Path, tmp_path: Path
) -> None:
    cache.publish("key", trial)
    other = PhaseCache(tmp_path / "other phases", (tmp_path / "nowhere", cache.folder))
    assert other.fork("key", tmp_path / "fork")
    assert not other.folder.exists()
    os.truncate(cache.folder / "key" / LAST, 10)
    assert other.fork("key", tmp_path / "another") is None
    assert (cache.folder / "key").is_dir()


def test_the_least_recently_used_phase_is_evicted_first(trial: Path, tmp_path: Path) -> None:
    size = sum((trial / name).stat().st_size for name in (LAST, BEST))
    cache = PhaseCache(tmp_path / "phases", cap=2.5 * size)
    for age, key in ((30, "old"), (20, "used")):
        cache.publish(key, trial)
        os.utime(cache.folder / key, (time.time() - age,) * 2)
    os.utime(cache.folder / "old", (time.time() - 40,) * 2)
    assert cache.fork("old", tmp_path / "fork")  # now it is the more recently used one
    cache.publish("new", trial)
    assert {entry.name for entry in cache.folder.iterdir()} == {"old", "new"}


def test_the_newest_phase_stays_even_beyond_the_cap(trial: Path, tmp_path: Path) -> None:
    cache = PhaseCache(tmp_path / "phases", cap=0)
    for key in ("one", "two"):
        cache.publish(key, trial)
    assert [entry.name for entry in cache.folder.iterdir()] == ["two"]


def test_later_checkpoints_of_a_trial_do_not_change_the_phase(
    cache: PhaseCache, trial: Path, tmp_path: Path
) -> None:
    cache.publish("key", trial)
    before = (cache.folder / "key" / BEST).read_bytes()
    cache.fork("key", tmp_path / "fork")
    for folder in (trial, tmp_path / "fork"):
        save({"model": {}}, folder / BEST)
    assert (cache.folder / "key" / BEST).read_bytes() == before


def test_the_second_trial_that_stores_a_phase_leaves_the_first_one(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, first = phase_cache._link, write_trial(tmp_path / "first")

    def overtaken(source: Path, target: Path) -> None:
        link(source, target)
        if not cache.has("key"):
            copytree(first, cache.folder / "key")

    monkeypatch.setattr(phase_cache, "_link", overtaken)
    cache.publish("key", trial)
    assert [entry.name for entry in cache.folder.iterdir()] == ["key"]
    assert not (cache.folder / "key" / BEST).samefile(trial / BEST)


def test_across_disks_checkpoints_are_copied(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    cache.publish("key", trial)
    assert cache.fork("key", tmp_path / "fork")
    for name in (LAST, BEST):
        assert not (cache.folder / "key" / name).samefile(trial / name)
    assert (tmp_path / "fork" / BEST).read_bytes() == (trial / BEST).read_bytes()
