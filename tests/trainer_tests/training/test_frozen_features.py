"""Outputs of frozen stages: kept or computed, they are the same bits, and training is the same."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.config import Data, TrainConfig
from trainer.data import mapped
from trainer.data.batches import batches
from trainer.data.canvas import letterbox
from trainer.data.dataset import Split, Splits
from trainer.evaluation.coco_metrics import detect
from trainer.model.detectors import Detector, build
from trainer.model.freezing import set_depth
from trainer.precision import DTYPES
from trainer.training import frozen_features
from trainer.training.engine import train_one_epoch
from trainer.training.frozen_features import KeptOutputs, keep_outputs
from trainer.training.optim import build as build_optimizer

MakeConfig = Callable[..., TrainConfig]
Canvases = tuple[Split, Any]


@pytest.fixture(scope="module")
def few(tiny: Splits) -> Canvases:
    """Four pictures and their canvases."""
    split = Split("train", tiny.train.pictures[:4], tiny.categories)
    return split, np.stack([letterbox(picture, 96) for picture in split.pictures])


@pytest.fixture(scope="module")
def config(tiny_config: MakeConfig) -> TrainConfig:
    return tiny_config()


@pytest.fixture(scope="module")
def detector(config: TrainConfig) -> Detector:
    return make(config)


def make(config: TrainConfig) -> Detector:
    torch.manual_seed(0)
    return build(config.model, 2)


def keep(
    detector: Detector, config: TrainConfig, few: Canvases, folder: Path, depth: int = 0
) -> KeptOutputs:
    return keep_outputs(detector, depth, config, [few], folder)["train"]


def bits(kept: KeptOutputs) -> list[bytes]:
    places = [0, 1, 2, 3, 3, 1]
    outputs = kept(places, [False, True, False, False, True, False])
    rows = [tensor.permute(0, 2, 3, 1).view(torch.uint8) for tensor in outputs.tensors]
    return [row.numpy().tobytes() for row in rows]


def files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in folder.glob("*.npy")}


# -- training with them ---------------------------------------------------------------------------


def losses(
    config: TrainConfig, few: Canvases, depth: int, folder: Path | None
) -> tuple[dict[str, float], list[Tensor]]:
    """Mean losses of an epoch of two steps, and the feature pyramids of val after it."""
    detector = make(config)
    kept = keep(detector, config, few, folder, depth) if folder else None
    set_depth(detector, detector.stages, depth)
    optimizer = build_optimizer(detector, config.train)

    def set_step(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 1e-4

    found = train_one_epoch(
        detector,
        optimizer,
        torch.amp.GradScaler("cpu", enabled=False),
        batches(*few, batch_size=2, augment="flip", seed=1, epoch=0, outputs=kept),
        set_step=set_step,
        precision="fp32",
        clip_norm=10.0,
        seed=0,
        epoch=0,
    ).losses
    pyramids: list[Tensor] = []
    detector.neck.register_forward_hook(lambda *own: pyramids.extend(own[2].values()))
    detect(detector, *few, batch_size=2, outputs=kept)
    return found, pyramids


@pytest.mark.parametrize(
    ("model", "depths"),
    [
        ({"backbone": "tf_efficientnet_lite0"}, (0, 1, 2, 3, 4)),
        ({"backbone": "resnet18"}, (0, 3)),
        pytest.param({"backbone": "vgg16_bn"}, (0, 2), marks=pytest.mark.slow),
        ({"backbone": "inception_v4"}, (1,)),
        ({"backbone": "convnext_tiny", "detector": "fcos"}, (0, 2)),
        ({"backbone": "resnet18", "detector": "faster_rcnn"}, (1,)),
        ({"backbone": "resnet18", "detector": "ssd"}, (1,)),
        pytest.param(
            {"detector": "fasterrcnn_mobilenet_v3_large_320_fpn"}, (0, 1), marks=pytest.mark.slow
        ),
        ({"detector": "ssdlite320_mobilenet_v3_large"}, (0, 2)),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_losses_and_features_are_those_of_the_whole_net(
    tiny_config: MakeConfig,
    few: Canvases,
    tmp_path: Path,
    model: dict[str, str],
    depths: tuple[int, ...],
) -> None:
    config = tiny_config({f"model.{name}": value for name, value in model.items()})
    for depth in depths:
        plain, seen = losses(config, few, depth, None)
        kept, again = losses(config, few, depth, tmp_path)
        assert kept == pytest.approx(plain, rel=1e-5)
        assert len(seen) >= 2 * 3  # two batches, and a map for each of three strides at least
        for one, other in zip(seen, again, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


# -- the files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_is_read_is_what_is_computed(
    tiny_config: MakeConfig,
    detector: Detector,
    few: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    config = tiny_config({"train.precision": precision})
    kept = keep(detector, config, few, tmp_path, depth=2)
    assert {t.dtype for t in kept([0], [True]).tensors} == {DTYPES[precision]}
    monkeypatch.setattr(frozen_features, "CAP", 0)
    without = keep(detector, config, few, tmp_path / "none", depth=2)
    assert not without.stores and not files(tmp_path / "none")
    assert bits(without) == bits(kept)


def test_files_are_made_once_and_shared_by_depths(
    detector: Detector, config: TrainConfig, few: Canvases, tmp_path: Path
) -> None:
    first = bits(keep(detector, config, few, tmp_path, depth=0))
    made = files(tmp_path)
    assert len(made) == 3 * 2  # levels, and mirrored or not
    assert bits(keep(detector, config, few, tmp_path, depth=0)) == first
    assert files(tmp_path) == made
    keep(detector, config, few, tmp_path, depth=1)  # strides 8 and 16, of the same files
    assert files(tmp_path) == made
    keep(detector, config, few, tmp_path, depth=3)  # stride 4 alone
    assert len(files(tmp_path)) == len(made) + 2


def test_what_is_trained_above_changes_no_key(
    config: TrainConfig, few: Canvases, tmp_path: Path
) -> None:
    detector = make(config)
    keep(detector, config, few, tmp_path, depth=1)
    made = files(tmp_path)
    with torch.no_grad():
        for name in detector.stages[4].parameters:
            detector.backbone.get_parameter(name).add_(1.0)
    keep(detector, config, few, tmp_path, depth=1)
    assert files(tmp_path) == made


def test_stochastic_depth_above_changes_no_key(
    tiny_config: MakeConfig, few: Canvases, tmp_path: Path
) -> None:
    config = tiny_config({"model.backbone": "convnext_tiny"})
    detector = make(config)
    keep(detector, config, few, tmp_path, depth=1)
    made = files(tmp_path)
    set_depth(detector, detector.stages, 1, drop_path=0.3)
    keep(detector, config, few, tmp_path, depth=1)
    assert files(tmp_path) == made


def test_other_weights_pixels_pictures_precision_code_or_threads_are_other_files(
    tiny_config: MakeConfig,
    config: TrainConfig,
    few: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = make(config)
    count = 0

    def assert_new(changed: TrainConfig = config, pictures: Canvases = few) -> None:
        nonlocal count
        keep(detector, changed, pictures, tmp_path, depth=2)
        assert len(files(tmp_path)) == count + 2
        count += 2

    assert_new()
    assert_new(tiny_config({"train.precision": "bf16"}))
    assert_new(pictures=(Split("train", few[0].pictures[:2], few[0].categories), few[1][:2]))
    with torch.no_grad():
        next(detector.backbone.parameters()).add_(0.1)
    assert_new()
    detector.mean.add_(1.0)
    assert_new()
    monkeypatch.setattr(frozen_features, "environment", lambda where: {"code": "other"})
    assert_new()


def test_augmentation_that_cannot_be_enumerated_keeps_val_alone(
    tiny_config: MakeConfig, detector: Detector, few: Canvases, tmp_path: Path
) -> None:
    splits = [few, (Split("val", few[0].pictures, few[0].categories), few[1])]
    for augment, kinds in (("none", {False}), ("flip", {False, True}), ("light_flip", None)):
        changed = tiny_config({"train.augment": augment})
        kept = keep_outputs(detector, 0, changed, splits, tmp_path)
        assert set(kept["val"].stores) == {False}
        assert (set(kept["train"].stores) if "train" in kept else None) == kinds


def test_nothing_is_kept_where_nothing_is_frozen(
    detector: Detector, config: TrainConfig, few: Canvases, tmp_path: Path
) -> None:
    assert keep_outputs(detector, 5, config, [few], tmp_path) == {}


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
def test_a_damaged_file_is_thrown_away_and_made_again(
    detector: Detector,
    config: TrainConfig,
    few: Canvases,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any],
) -> None:
    before = bits(keep(detector, config, few, tmp_path, depth=2))
    whole = {file: file.read_bytes() for file in tmp_path.glob("*.npy")}
    # as another process finds it: this one has checked its own
    monkeypatch.setattr(mapped, "_checked", set())
    damage(next(iter(whole)))
    with caplog.at_level(logging.WARNING):
        assert bits(keep(detector, config, few, tmp_path, depth=2)) == before
    assert "is damaged" in caplog.text
    assert {file: file.read_bytes() for file in tmp_path.glob("*.npy")} == whole


def test_what_a_killed_process_left_half_written_counts_for_nothing(
    detector: Detector, config: TrainConfig, few: Canvases, tmp_path: Path
) -> None:
    before = bits(keep(detector, config, few, tmp_path, depth=2))
    for file in tmp_path.glob("*.npy"):
        file.rename(tmp_path / (file.stem.rpartition("-")[0] + ".part"))
    assert bits(keep(detector, config, few, tmp_path, depth=2)) == before
    assert not list(tmp_path.glob("*.part"))


def test_of_a_backbone_that_is_no_chain_nothing_is_kept(
    detector: Detector,
    config: TrainConfig,
    few: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frozen_features, "find_chain", lambda *_: None)
    assert keep_outputs(detector, 0, config, [few], tmp_path) == {}
    assert not files(tmp_path)


KEEP = """
import sys
from pathlib import Path
import torch
from trainer.training import frozen_features
from trainer.config import Data, TrainConfig
from trainer.data.canvas import open_store
from trainer.data.loading import load
from trainer.model.detectors import build
config = TrainConfig.model_validate_json(sys.argv[1])
train, val, canvases, outputs = map(Path, sys.argv[2:])
torch.manual_seed(0)
detector = build(config.model, 2)
split = load(Data(train=train, val=val), canvases).train
canvases = open_store(split, config.model.image_size, canvases)
computed = []
compute = frozen_features.compute
frozen_features.compute = lambda *own, **named: computed.append(0) or compute(*own, **named)
print("ready", flush=True)
sys.stdin.readline()
frozen_features.keep_outputs(detector, 2, config, [(split, canvases)], outputs)
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
    told = run_two_at_once(KEEP, config.model_dump_json(), tiny_data.train, tiny_data.val, *places)
    idle, busy = sorted(int(computed) for computed in told)
    assert idle == 0
    assert busy == 2 * len(tiny.train.pictures) + 1  # and one to learn how large they will be
    assert len(files(places[1])) == 2  # of pictures as they are, and mirrored
    assert not list(places[1].glob("*.part"))


def test_files_unused_for_longest_go_when_the_cap_is_reached(
    config: TrainConfig, few: Canvases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make(config)
    keep(detector, config, few, tmp_path, depth=2)
    old = files(tmp_path)
    total = sum((tmp_path / name).stat().st_size for name in old)
    for name in old:
        os.utime(tmp_path / name, (1, 1))
    detector.mean.add_(1.0)  # another trunk
    monkeypatch.setattr(frozen_features, "CAP", 1.5 * total)
    keep(detector, config, few, tmp_path, depth=2)
    left = files(tmp_path)
    assert len(left) == 3 and len(left.keys() & old.keys()) == 1


def test_where_not_all_have_room_none_is_made(
    detector: Detector,
    config: TrainConfig,
    few: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep(detector, config, few, tmp_path, depth=2)
    total = sum(file.stat().st_size for file in tmp_path.glob("*.npy"))
    monkeypatch.setattr(frozen_features, "CAP", 0.9 * total)  # of mirrored ones and the others each
    assert not keep(detector, config, few, tmp_path / "none", depth=2).stores
    assert not files(tmp_path / "none")


def test_old_files_make_room_and_needed_ones_stay(
    config: TrainConfig, few: Canvases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make(config)
    keep(detector, config, few, tmp_path, depth=2)
    old = files(tmp_path)
    total = sum((tmp_path / name).stat().st_size for name in old)
    disk = shutil.disk_usage(tmp_path)
    free = [2 * total]
    monkeypatch.setattr(
        frozen_features.shutil, "disk_usage", lambda place: disk._replace(free=free[-1])
    )
    gone, left = (tmp_path / name for name in sorted(old))
    gone.unlink()
    os.utime(left, (1, 1))
    assert keep(detector, config, few, tmp_path, depth=2).stores
    assert files(tmp_path).keys() == old.keys()
    detector.mean.add_(1.0)  # another trunk
    free.append(total)
    assert keep(detector, config, few, tmp_path, depth=2).stores
    assert len(files(tmp_path)) == 2 and not files(tmp_path).keys() & old.keys()


def test_a_small_disk_keeps_nothing_and_says_so(
    detector: Detector,
    config: TrainConfig,
    few: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(frozen_features.shutil, "disk_usage", lambda place: disk)
    kept = keep(detector, config, few, tmp_path, depth=2)
    assert not kept.stores and not files(tmp_path)
    assert "free, of which they may take 50%" in caplog.text


def test_a_disk_that_fills_up_while_a_file_is_written_keeps_nothing(
    detector: Detector,
    config: TrainConfig,
    few: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped.os, "fsync", full)
    kept = keep(detector, config, few, tmp_path, depth=2)
    assert not kept.stores
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]
