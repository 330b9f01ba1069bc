"""Files of frozen features: made once, checked, and deleted when the disk gets full."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Data, TrainConfig
from trainer.data import shared_arrays
from trainer.data.dataset import Splits
from trainer.model.detectors import Detector
from trainer.training import feature_files

from .features import Canvases, MakeConfig, bits, cache_features, files, make_detector


@pytest.fixture(scope="module")
def config(tiny_config: MakeConfig) -> TrainConfig:
    return tiny_config()


@pytest.fixture(scope="module")
def detector(config: TrainConfig) -> Detector:
    return make_detector(config)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: os.truncate(file, 0),
        lambda file: os.truncate(file, 100),
        lambda file: os.truncate(file, file.stat().st_size - 1),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    ],
    ids=["empty", "no header", "truncated", "flipped"],
)
def test_a_damaged_file_is_deleted_and_made_again(
    detector: Detector,
    config: TrainConfig,
    pictures: Canvases,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any],
) -> None:
    before = bits(cache_features(detector, config, pictures, tmp_path, depth=2))
    intact = {file: file.read_bytes() for file in tmp_path.glob("*.npy")}
    # as in another process: this one has already checked the files
    monkeypatch.setattr(shared_arrays, "_checked", set())
    damage(next(iter(intact)))
    with caplog.at_level(logging.WARNING):
        assert bits(cache_features(detector, config, pictures, tmp_path, depth=2)) == before
    assert "is damaged" in caplog.text
    assert {file: file.read_bytes() for file in tmp_path.glob("*.npy")} == intact


def test_unfinished_files_of_a_killed_process_are_made_again(
    detector: Detector, config: TrainConfig, pictures: Canvases, tmp_path: Path
) -> None:
    before = bits(cache_features(detector, config, pictures, tmp_path, depth=2))
    for file in tmp_path.glob("*.npy"):
        file.rename(tmp_path / (file.stem.rpartition("-")[0] + ".part"))
    assert bits(cache_features(detector, config, pictures, tmp_path, depth=2)) == before
    assert not list(tmp_path.glob("*.part"))


CACHE_FEATURES = """
import sys
from pathlib import Path
import torch
from trainer.training import frozen_features
from trainer.config import Data, TrainConfig
from trainer.data.canvas_store import open_canvases
from trainer.data.loading import load
from trainer.model.detectors import build
config = TrainConfig.model_validate_json(sys.argv[1])
train, val, canvases, outputs = map(Path, sys.argv[2:])
torch.manual_seed(0)
detector = build(config.model, 2)
split = load(Data(train=train, val=val), canvases).train
canvases = open_canvases(split, config.model.image_size, canvases)
computed = []
compute = frozen_features.compute
frozen_features.compute = lambda *args, **named: computed.append(0) or compute(*args, **named)
print("ready", flush=True)
sys.stdin.readline()
frozen_features.cache_frozen_features(detector, 2, config, [(split, canvases)], outputs)
print(len(computed))
"""


def test_two_processes_make_a_file_once(
    config: TrainConfig,
    tiny: Splits,
    tiny_data: Data,
    tmp_path: Path,
    run_two_at_once: Callable[..., list[str]],
) -> None:
    places = [tmp_path / name for name in ("canvases", "outputs")]
    counts = run_two_at_once(
        CACHE_FEATURES, config.model_dump_json(), tiny_data.train, tiny_data.val, *places
    )
    idle, busy = sorted(int(computed) for computed in counts)
    assert idle == 0
    assert busy == 2 * len(tiny.train.pictures) + 1  # and one to measure the size of the files
    assert len(files(places[1])) == 2  # plain and mirrored pictures
    assert not list(places[1].glob("*.part"))


def test_the_least_recently_used_files_are_deleted_beyond_the_cap(
    config: TrainConfig, pictures: Canvases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector(config)
    cache_features(detector, config, pictures, tmp_path, depth=2)
    old = files(tmp_path)
    total = sum((tmp_path / name).stat().st_size for name in old)
    for name in old:
        os.utime(tmp_path / name, (1, 1))
    detector.mean.add_(1.0)  # other features
    monkeypatch.setattr(feature_files, "MAX_BYTES", 1.5 * total)
    cache_features(detector, config, pictures, tmp_path, depth=2)
    left = files(tmp_path)
    assert len(left) == 3 and len(left.keys() & old.keys()) == 1


def test_no_file_is_made_if_not_all_have_room(
    detector: Detector,
    config: TrainConfig,
    pictures: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache_features(detector, config, pictures, tmp_path, depth=2)
    total = sum(file.stat().st_size for file in tmp_path.glob("*.npy"))
    monkeypatch.setattr(feature_files, "MAX_BYTES", 0.9 * total)  # for mirrored and plain ones
    assert not cache_features(detector, config, pictures, tmp_path / "none", depth=2).files
    assert not files(tmp_path / "none")


def test_old_files_are_deleted_for_new_ones_and_needed_ones_stay(
    config: TrainConfig, pictures: Canvases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector(config)
    cache_features(detector, config, pictures, tmp_path, depth=2)
    old = files(tmp_path)
    total = sum((tmp_path / name).stat().st_size for name in old)
    disk = shutil.disk_usage(tmp_path)
    free = [2 * total]
    monkeypatch.setattr(shutil, "disk_usage", lambda place: disk._replace(free=free[-1]))
    gone, left = (tmp_path / name for name in sorted(old))
    gone.unlink()
    os.utime(left, (1, 1))
    assert cache_features(detector, config, pictures, tmp_path, depth=2).files
    assert files(tmp_path).keys() == old.keys()
    detector.mean.add_(1.0)  # other features
    free.append(total)
    assert cache_features(detector, config, pictures, tmp_path, depth=2).files
    assert len(files(tmp_path)) == 2 and not files(tmp_path).keys() & old.keys()


def test_a_small_disk_caches_nothing_and_logs_the_reason(
    detector: Detector,
    config: TrainConfig,
    pictures: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: disk)
    cached = cache_features(detector, config, pictures, tmp_path, depth=2)
    assert not cached.files and not files(tmp_path)
    assert "free, of which they may take 50%" in caplog.text


def test_a_disk_that_fills_up_during_writing_caches_nothing(
    detector: Detector,
    config: TrainConfig,
    pictures: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cached = cache_features(detector, config, pictures, tmp_path, depth=2)
    assert not cached.files
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]


def test_the_room_is_limited_by_a_cap_and_by_half_of_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "not" / "there"
    assert feature_files.space_problem(missing, 1000) == ""
    assert "of at most 20" in feature_files.space_problem(missing, 10**11)
    monkeypatch.setattr(feature_files, "MAX_DISK_FRACTION", 0.0)
    assert "free, of which" in feature_files.space_problem(missing, 1000)


def test_files_that_are_already_cached_count_as_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: disk)
    assert feature_files.space_problem(tmp_path, 600)
    (tmp_path / "a-0.npy").write_bytes(bytes(200))
    assert not feature_files.space_problem(tmp_path, 600)
