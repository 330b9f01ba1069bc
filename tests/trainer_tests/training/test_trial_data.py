"""The data of a trial: canvases, ground truth, and frozen features opened once for each depth."""

from collections.abc import Callable

import torch

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.phases import plan
from trainer.training.trial_data import TrialData
from trainer.training.trial_state import build_learner


def test_canvases_are_opened_for_train_and_val(config: TrainConfig, few: Splits) -> None:
    data = TrialData.open(config, few, 0, lambda: None)
    size = config.model.image_size
    assert data.train_canvases.shape == (len(few.train.pictures), size, size, 3)
    assert data.val_canvases.shape == (len(few.val.pictures), size, size, 3)


def test_frozen_features_are_opened_once_for_each_depth(
    tiny_config: Callable[..., TrainConfig], few: Splits
) -> None:
    config = tiny_config({"model.image_size": 64, "train.trunk_cache": 0})
    learner = build_learner(config, len(few.categories), torch.device("cpu"))
    data = TrialData.open(config, few, 0, lambda: None)
    head, *_, deepest = plan(config.train, len(learner.detector.stages))
    features = data.frozen_features(learner.detector, head, lambda: None)
    assert {name: cached.count for name, cached in features.items()} == {"train": 8, "val": 4}
    assert data.frozen_features(learner.detector, head, lambda: None) is features
    assert data.frozen_features(learner.detector, deepest, lambda: None) == {}
