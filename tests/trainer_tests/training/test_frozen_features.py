"""Frozen features: from files or computed, they have the same bits, and training is the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.data.batches import batches
from trainer.data.dataset import Split
from trainer.evaluation.detections import detect
from trainer.model.detectors import Detector
from trainer.model.freezing import set_depth
from trainer.precision import DTYPES
from trainer.training import feature_files, frozen_features
from trainer.training.engine import train_one_epoch
from trainer.training.frozen_features import cache_frozen_features
from trainer.training.optim import build as build_optimizer

from .features import Canvases, MakeConfig, bits, cache_features, files, make_detector


@pytest.fixture(scope="module")
def config(tiny_config: MakeConfig) -> TrainConfig:
    return tiny_config()


@pytest.fixture(scope="module")
def detector(config: TrainConfig) -> Detector:
    return make_detector(config)


def losses(
    config: TrainConfig, pictures: Canvases, depth: int, folder: Path | None
) -> tuple[dict[str, float], list[Tensor]]:
    """Mean losses of an epoch of two steps, and the feature pyramids of val after it."""
    detector = make_detector(config)
    cached = cache_features(detector, config, pictures, folder, depth) if folder else None
    set_depth(detector, detector.stages, depth)
    optimizer = build_optimizer(detector, config.train)

    def set_step(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 1e-4

    means = train_one_epoch(
        detector,
        optimizer,
        torch.amp.GradScaler("cpu", enabled=False),
        batches(*pictures, batch_size=2, augment="flip", seed=1, epoch=0, features=cached),
        set_step=set_step,
        precision="fp32",
        clip_norm=10.0,
        seed=0,
        epoch=0,
    ).losses
    pyramids: list[Tensor] = []
    detector.neck.register_forward_hook(lambda *hook: pyramids.extend(hook[2].values()))
    detect(detector, *pictures, batch_size=2, features=cached)
    return means, pyramids


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
def test_cached_features_do_not_change_losses_and_feature_maps(
    tiny_config: MakeConfig,
    pictures: Canvases,
    tmp_path: Path,
    model: dict[str, str],
    depths: tuple[int, ...],
) -> None:
    config = tiny_config({f"model.{name}": value for name, value in model.items()})
    for depth in depths:
        plain, seen = losses(config, pictures, depth, None)
        cached, again = losses(config, pictures, depth, tmp_path)
        assert cached == pytest.approx(plain, rel=1e-5)
        assert len(seen) >= 2 * 3  # two batches, and a map for each of three strides at least
        for one, other in zip(seen, again, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_features_from_files_have_the_bits_of_computed_ones(
    tiny_config: MakeConfig,
    detector: Detector,
    pictures: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    config = tiny_config({"train.precision": precision})
    cached = cache_features(detector, config, pictures, tmp_path, depth=2)
    assert {t.dtype for t in cached([0], [True]).tensors} == {DTYPES[precision]}
    monkeypatch.setattr(feature_files, "MAX_BYTES", 0)
    without = cache_features(detector, config, pictures, tmp_path / "none", depth=2)
    assert not without.files and not files(tmp_path / "none")
    assert bits(without) == bits(cached)


def test_files_are_made_once_and_shared_by_depths(
    detector: Detector, config: TrainConfig, pictures: Canvases, tmp_path: Path
) -> None:
    first = bits(cache_features(detector, config, pictures, tmp_path, depth=0))
    made = files(tmp_path)
    assert len(made) == 3 * 2  # levels, and mirrored or not
    assert bits(cache_features(detector, config, pictures, tmp_path, depth=0)) == first
    assert files(tmp_path) == made
    cache_features(
        detector, config, pictures, tmp_path, depth=1
    )  # strides 8 and 16, of the same files
    assert files(tmp_path) == made
    cache_features(detector, config, pictures, tmp_path, depth=3)  # stride 4 alone
    assert len(files(tmp_path)) == len(made) + 2


def test_weights_of_unfrozen_stages_do_not_change_the_files(
    config: TrainConfig, pictures: Canvases, tmp_path: Path
) -> None:
    detector = make_detector(config)
    cache_features(detector, config, pictures, tmp_path, depth=1)
    made = files(tmp_path)
    with torch.no_grad():
        for name in detector.stages[4].parameters:
            detector.backbone.get_parameter(name).add_(1.0)
    cache_features(detector, config, pictures, tmp_path, depth=1)
    assert files(tmp_path) == made


def test_stochastic_depth_of_unfrozen_stages_does_not_change_the_files(
    tiny_config: MakeConfig, pictures: Canvases, tmp_path: Path
) -> None:
    config = tiny_config({"model.backbone": "convnext_tiny"})
    detector = make_detector(config)
    cache_features(detector, config, pictures, tmp_path, depth=1)
    made = files(tmp_path)
    set_depth(detector, detector.stages, 1, drop_path=0.3)
    cache_features(detector, config, pictures, tmp_path, depth=1)
    assert files(tmp_path) == made


def test_every_input_of_the_features_changes_the_files(
    tiny_config: MakeConfig,
    config: TrainConfig,
    pictures: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = make_detector(config)
    count = 0

    def assert_new(changed: TrainConfig = config, few: Canvases = pictures) -> None:
        nonlocal count
        cache_features(detector, changed, few, tmp_path, depth=2)
        assert len(files(tmp_path)) == count + 2
        count += 2

    assert_new()
    assert_new(tiny_config({"train.precision": "bf16"}))
    assert_new(
        few=(Split("train", pictures[0].pictures[:2], pictures[0].categories), pictures[1][:2])
    )
    with torch.no_grad():
        next(detector.backbone.parameters()).add_(0.1)
    assert_new()
    detector.mean.add_(1.0)
    assert_new()
    monkeypatch.setattr(frozen_features, "environment", lambda device: {"code": "other"})
    assert_new()


def test_augmentation_without_fixed_pictures_caches_only_val(
    tiny_config: MakeConfig, detector: Detector, pictures: Canvases, tmp_path: Path
) -> None:
    splits = [pictures, (Split("val", pictures[0].pictures, pictures[0].categories), pictures[1])]
    for augment, kinds in (("none", {False}), ("flip", {False, True}), ("light_flip", None)):
        changed = tiny_config({"train.augment": augment})
        cached = cache_frozen_features(detector, 0, changed, splits, tmp_path)
        assert set(cached["val"].files) == {False}
        assert (set(cached["train"].files) if "train" in cached else None) == kinds


def test_nothing_is_cached_without_a_frozen_stage(
    detector: Detector, config: TrainConfig, pictures: Canvases, tmp_path: Path
) -> None:
    assert cache_frozen_features(detector, 5, config, [pictures], tmp_path) == {}


def test_nothing_is_cached_for_a_backbone_that_is_not_a_chain(
    detector: Detector,
    config: TrainConfig,
    pictures: Canvases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frozen_features, "find_chain", lambda *_: None)
    assert cache_frozen_features(detector, 0, config, [pictures], tmp_path) == {}
    assert not files(tmp_path)
