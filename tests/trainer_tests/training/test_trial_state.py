"""The state of a trial: stopped and resumed at any epoch, it ends with the same bits."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from trainer.config import InputError, TrainConfig
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport
from trainer.model.checkpoint import LAST
from trainer.training.feature_files import features_folder

from .trials import EPOCHS, Unbroken, assert_same, train_until


@pytest.fixture(scope="module")
def stopped(config: TrainConfig, few: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial stopped after every epoch and resumed; `after N` is a copy of its folder."""
    place = tmp_path_factory.mktemp("stopped")
    for epoch in range(1, EPOCHS + 1):
        result = train_until(config, few, place / "trial", until=epoch)
        assert result.epochs == epoch
        copytree(place / "trial", place / f"after {epoch}")
    return place


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_a_trial_resumed_after_every_epoch_has_the_same_bits(
    unbroken: Unbroken, stopped: Path, epoch: int
) -> None:
    assert_same(stopped / f"after {epoch}", unbroken.after(epoch))


def test_a_resumed_trial_reports_its_finished_epochs_first(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path
) -> None:
    folder = copytree(unbroken.after(EPOCHS), tmp_path / "trial")
    reports: list[EpochReport] = []
    assert train_until(config, few, folder, reports=reports) == unbroken.result
    assert reports == unbroken.reports


def test_a_trial_stopped_at_a_finished_epoch_trains_nothing(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path
) -> None:
    folder = copytree(unbroken.after(2), tmp_path / "trial")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    reports: list[EpochReport] = []
    train_until(config, few, folder, until=1, reports=reports)
    assert [r.epoch for r in reports] == [1]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_trial_with_a_damaged_checkpoint_resumes_from_the_one_before(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path
) -> None:
    folder = copytree(unbroken.after(2), tmp_path / "trial")
    os.truncate(folder / LAST, 1000)
    reports: list[EpochReport] = []
    train_until(config, few, folder, until=2, reports=reports)
    assert [r.epoch for r in reports] == [1, 2]
    assert_same(folder, unbroken.after(2))


def test_a_trial_does_not_resume_with_other_pretrained_weights(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path
) -> None:
    folder = copytree(unbroken.after(1), tmp_path / "trial")
    train = config.train.model_copy(update={"seed": 1})  # of a backbone of random weights
    with pytest.raises(InputError, match=r"model\.weights: what is there now"):
        train_until(config.model_copy(update={"train": train}), few, folder)


@pytest.mark.parametrize("until", [1, 3])
def test_a_trial_resumed_with_cached_features_has_the_same_bits(
    tiny_config: Callable[..., TrainConfig], few: Splits, tmp_path: Path, until: int
) -> None:
    changes = {"model.image_size": 64, "train.trunk_cache": 2, "train.unfreeze.depth": 2}
    config = tiny_config(changes)
    reports: list[EpochReport] = []
    train_until(config, few, tmp_path / "unbroken", 4, reports)
    assert [report.images_from_cache for report in reports] == [8 + 4] * 4
    train_until(config, few, tmp_path / "stopped", until)
    if until == 3:  # files that are gone are made again
        shutil.rmtree(features_folder())
    train_until(config, few, tmp_path / "stopped", 4)
    assert_same(tmp_path / "stopped", tmp_path / "unbroken")


ALL_ON = {
    "train.unfreeze.depth": 4,
    "train.unfreeze.stage_lr_decay": 0.5,
    "train.unfreeze.drop_path": 0.3,
    "train.unfreeze.open_epochs": 3,
    "train.head.epochs": 1,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"model.detector": "fcos", "train.optimizer": "sgd"},
        pytest.param({"model.detector": "ssd"}, marks=pytest.mark.slow),
        {"model.detector": "ssdlite320_mobilenet_v3_large", "train.unfreeze.drop_path": 0.0},
        pytest.param({"model.detector": "faster_rcnn"}, marks=pytest.mark.slow),
    ],
)
def test_every_detector_resumed_while_stages_open_has_the_same_bits(
    tiny_config: Callable[..., TrainConfig], few: Splits, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = tiny_config({"model.image_size": 64, **ALL_ON, **changes})
    reports: list[EpochReport] = []
    train_until(config, few, tmp_path / "unbroken", 4, reports)
    assert [report.depth for report in reports] == [0, 2, 3, 4]
    for epoch in range(1, 5):
        train_until(config, few, tmp_path / "stopped", epoch)
    assert_same(tmp_path / "stopped", tmp_path / "unbroken")
