"""Frozen features of a few pictures, for the tests of how they are computed and stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer.config import TrainConfig
from trainer.data.dataset import Split
from trainer.model.detectors import Detector, build
from trainer.training.frozen_features import CachedFeatures, cache_frozen_features

MakeConfig = Callable[..., TrainConfig]
Canvases = tuple[Split, Any]


def make_detector(config: TrainConfig) -> Detector:
    torch.manual_seed(0)
    return build(config.model, 2)


def cache_features(
    detector: Detector, config: TrainConfig, few: Canvases, folder: Path, depth: int = 0
) -> CachedFeatures:
    return cache_frozen_features(detector, depth, config, [few], folder)["train"]


def bits(features: CachedFeatures) -> list[bytes]:
    """The features of some pictures, plain and mirrored, as bytes."""
    indices = [0, 1, 2, 3, 3, 1]
    outputs = features(indices, [False, True, False, False, True, False])
    rows = [tensor.permute(0, 2, 3, 1).view(torch.uint8) for tensor in outputs.tensors]
    return [row.numpy().tobytes() for row in rows]


def files(folder: Path) -> dict[str, int]:
    """Inodes of the files by name."""
    return {file.name: file.stat().st_ino for file in folder.glob("*.npy")}
