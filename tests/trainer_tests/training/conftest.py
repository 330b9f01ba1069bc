"""A small trial and some detectors for several test files."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from trainer.config import CocoDetector, Model, NewDetector, TrainConfig
from trainer.data.canvas import letterbox
from trainer.data.dataset import Split, Splits
from trainer.model.detectors import Detector, build

from .features import Canvases
from .trials import Unbroken


@pytest.fixture(scope="package")
def config(tiny_config: Callable[..., TrainConfig]) -> TrainConfig:
    deep = {"train.unfreeze.depth": "all", "train.unfreeze.batch_norm": "adapt"}
    return tiny_config({"model.image_size": 64, **deep})


@pytest.fixture(scope="package")
def few(tiny: Splits) -> Splits:
    """Two steps an epoch."""
    train, val = (
        replace(split, pictures=split.pictures[:count])
        for split, count in ((tiny.train, 8), (tiny.val, 4))
    )
    return replace(tiny, train=train, val=val)


@pytest.fixture(scope="package")
def unbroken(
    config: TrainConfig, few: Splits, tmp_path_factory: pytest.TempPathFactory
) -> Unbroken:
    return Unbroken(config, few, tmp_path_factory.mktemp("unbroken"))


@pytest.fixture(
    scope="package",
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


@pytest.fixture(scope="package")
def pictures(tiny: Splits) -> Canvases:
    """Four pictures and their canvases."""
    split = Split("train", tiny.train.pictures[:4], tiny.categories)
    return split, np.stack([letterbox(picture, 96) for picture in split.pictures])
