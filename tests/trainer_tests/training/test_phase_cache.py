"""Finished phases: found by what they depend on, taken whole or not at all."""

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
from trainer.training import phase_cache
from trainer.training.phase_cache import PhaseCache, digest, phase_key

CPU = torch.device("cpu")
MakeConfig = Callable[..., TrainConfig]


def head_key(config: TrainConfig) -> str:
    return phase_key(config, plan(config.train, 5)[:1])


def head_digest(config: TrainConfig, data: str = "data", start: str = "start") -> str:
    return digest(config, plan(config.train, 5)[:1], data, start, CPU)


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
    ],
)
def test_trials_that_differ_only_later_share_a_head(
    tiny_config: MakeConfig, later: dict[str, Any]
) -> None:
    assert head_key(tiny_config(later)) == head_key(tiny_config())
    assert head_digest(tiny_config(later)) == head_digest(tiny_config())


def test_the_default_of_a_later_field_leaves_phases_as_they_were(tiny_config: MakeConfig) -> None:
    assert "detections" not in head_key(tiny_config())
    assert head_key(tiny_config({"model.detections": 100})) == head_key(tiny_config())


@pytest.mark.parametrize(
    "earlier",
    [
        {"model.detector": "faster_rcnn"},
        {"model.backbone": "resnet18"},
        {"model.weights": "imagenet"},
        {"model.image_size": 128},
        {"model.detections": 300},  # by which the best epoch is told
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
def test_trials_that_differ_before_share_none(
    tiny_config: MakeConfig, earlier: dict[str, Any]
) -> None:
    assert head_key(tiny_config(earlier)) != head_key(tiny_config())


def test_later_phases_have_keys_of_their_own(tiny_config: MakeConfig) -> None:
    config = tiny_config()
    phases = plan(config.train, 5)
    keys = {phase_key(config, phases[: i + 1]) for i in range(len(phases))}
    assert len(keys) == len(phases)


def test_other_data_and_other_threads_are_other_phases(tiny_config: MakeConfig) -> None:
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


def test_of_the_weights_their_tensors_count_and_not_their_place(tiny_config: MakeConfig) -> None:
    here, there = (tiny_config({"model.weights": f"{place}.pth"}) for place in ("a", "b"))
    assert head_digest(here) == head_digest(there)
    assert head_digest(here, start="other") != head_digest(here)


def test_other_code_or_another_library_is_another_phase(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    seen = {head_digest(config)}
    monkeypatch.setattr(phase_cache, "version", lambda name: f"{name} of tomorrow")
    seen.add(head_digest(config))
    monkeypatch.setattr(phase_cache, "_sources", lambda: "other code")
    seen.add(head_digest(config))
    capabilities = torch.cpu.get_capabilities()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities | {"amx_bf16": None})
    seen.add(head_digest(config))
    assert len(seen) == 4


def test_the_code_of_every_file_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copytree(Path(phase_cache.__file__).parent, tmp_path / "trainer")
    monkeypatch.setattr(phase_cache, "__file__", str(tmp_path / "trainer" / "phase_cache.py"))
    sources = phase_cache._sources.__wrapped__
    before = sources()
    for name in ("fit.py", "data/pixels.py", "model/losses.py"):
        file = tmp_path / "trainer" / name
        file.write_text(file.read_text() + "\n")
        assert sources() != before
        before = sources()


def test_a_fork_has_the_tensors_that_were_filed_and_says_that_it_is_one(
    cache: PhaseCache, trial: Path, tmp_path: Path
) -> None:
    cache.file_away("key", trial)
    fork = tmp_path / "fork"
    checkpoint = cache.fork("key", fork)
    assert checkpoint and checkpoint["reports"] == [{"epoch": 1, "forked": True}]
    kept = load(fork / LAST)
    assert kept["reports"] == checkpoint["reports"]
    assert torch.equal(kept["model"]["a"], torch.ones(3))
    assert (fork / BEST).read_bytes() == (trial / BEST).read_bytes()


def test_what_is_not_filed_gives_no_fork_and_no_folder(cache: PhaseCache, tmp_path: Path) -> None:
    assert cache.fork("key", tmp_path / "fork") is None
    assert not (tmp_path / "fork").exists()


def test_the_first_to_file_a_phase_stays(cache: PhaseCache, trial: Path) -> None:
    cache.file_away("key", trial)
    before = (cache.folder / "key" / LAST).read_bytes()
    save({"model": {}, "reports": [2]}, trial / LAST)
    cache.file_away("key", trial)
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
def test_a_damaged_entry_is_thrown_away_and_can_be_filed_again(
    cache: PhaseCache, trial: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    cache.file_away("key", trial)
    damage(cache.folder / "key" / name)
    assert cache.fork("key", tmp_path / "fork") is None
    assert not (cache.folder / "key").exists()
    assert not (tmp_path / "fork").exists()
    cache.file_away("key", write_trial(tmp_path / "another"))
    assert cache.fork("key", tmp_path / "fork")


def test_an_entry_that_is_thrown_out_meanwhile_gives_no_fork(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.file_away("key", trial)

    def load_and_lose(file: Path) -> Any:
        found = load(file)
        if file.name == BEST:
            rmtree(file.parent)
        return found

    monkeypatch.setattr(phase_cache, "load", load_and_lose)
    assert cache.fork("key", tmp_path / "fork") is None
    assert not (tmp_path / "fork" / LAST).exists()


def test_an_entry_that_cannot_be_read_just_now_stays(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.file_away("key", trial)

    def fail(file: Path) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(phase_cache, "load", fail)
    assert cache.fork("key", tmp_path / "fork") is None
    monkeypatch.undo()
    assert cache.fork("key", tmp_path / "fork")


def test_a_filing_that_fails_leaves_nothing_behind(cache: PhaseCache, trial: Path) -> None:
    (trial / BEST).unlink()
    with pytest.raises(OSError):
        cache.file_away("key", trial)
    assert not list(cache.folder.iterdir())


def test_phases_of_other_searches_are_taken_and_left_alone(
    cache: PhaseCache, trial: Path, tmp_path: Path
) -> None:
    cache.file_away("key", trial)
    other = PhaseCache(tmp_path / "other phases", (tmp_path / "nowhere", cache.folder))
    assert other.fork("key", tmp_path / "fork")
    assert not other.folder.exists()
    os.truncate(cache.folder / "key" / LAST, 10)
    assert other.fork("key", tmp_path / "another") is None
    assert (cache.folder / "key").is_dir()


def test_over_its_cap_what_was_used_longest_ago_goes_first(trial: Path, tmp_path: Path) -> None:
    size = sum((trial / name).stat().st_size for name in (LAST, BEST))
    cache = PhaseCache(tmp_path / "phases", cap=2.5 * size)
    for age, key in ((30, "old"), (20, "used")):
        cache.file_away(key, trial)
        os.utime(cache.folder / key, (time.time() - age,) * 2)
    os.utime(cache.folder / "old", (time.time() - 40,) * 2)
    assert cache.fork("old", tmp_path / "fork")  # now it is the younger one
    cache.file_away("new", trial)
    assert {entry.name for entry in cache.folder.iterdir()} == {"old", "new"}


def test_the_phase_just_filed_stays_whatever_the_cap(trial: Path, tmp_path: Path) -> None:
    cache = PhaseCache(tmp_path / "phases", cap=0)
    for key in ("one", "two"):
        cache.file_away(key, trial)
    assert [entry.name for entry in cache.folder.iterdir()] == ["two"]


def test_what_a_trial_writes_later_does_not_reach_the_phase(
    cache: PhaseCache, trial: Path, tmp_path: Path
) -> None:
    cache.file_away("key", trial)
    before = (cache.folder / "key" / BEST).read_bytes()
    cache.fork("key", tmp_path / "fork")
    for folder in (trial, tmp_path / "fork"):
        save({"model": {}}, folder / BEST)
    assert (cache.folder / "key" / BEST).read_bytes() == before


def test_who_comes_second_to_file_a_phase_leaves_it(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, first = phase_cache._link, write_trial(tmp_path / "first")

    def overtaken(source: Path, target: Path) -> None:
        link(source, target)
        if not cache.has("key"):
            copytree(first, cache.folder / "key")

    monkeypatch.setattr(phase_cache, "_link", overtaken)
    cache.file_away("key", trial)
    assert [entry.name for entry in cache.folder.iterdir()] == ["key"]
    assert not (cache.folder / "key" / BEST).samefile(trial / BEST)


def test_across_disks_checkpoints_are_copied(
    cache: PhaseCache, trial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", elsewhere)
    cache.file_away("key", trial)
    assert cache.fork("key", tmp_path / "fork")
    for name in (LAST, BEST):
        assert not (cache.folder / "key" / name).samefile(trial / name)
    assert (tmp_path / "fork" / BEST).read_bytes() == (trial / BEST).read_bytes()
