"""The state of a trial: stopped and resumed at any epoch, it ends with the same bits."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from trainer.config import InputError, TrainConfig
from trainer.data.canvas_store import open_canvases
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport
from trainer.evaluation.coco_metrics import GroundTruth, score
from trainer.evaluation.detections import BATCH_SIZE, detect
from trainer.model.checkpoint import BEST, LAST, load, load_trained_state
from trainer.model.detectors import build
from trainer.training.feature_files import features_folder

from .trials import EPOCHS, Unbroken, assert_same, flat, train_until, with_phases_until


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


@pytest.fixture(scope="module")
def averaged(
    config: TrainConfig, few: Splits, tmp_path_factory: pytest.TempPathFactory
) -> Unbroken:
    """The trial of `unbroken` with averaged weights."""
    train = config.train.model_copy(update={"ema": 0.9})
    place = tmp_path_factory.mktemp("averaged")
    return Unbroken(config.model_copy(update={"train": train}), few, place)


def test_an_average_does_not_change_what_is_trained(unbroken: Unbroken, averaged: Unbroken) -> None:
    assert [r.losses for r in averaged.reports] == [r.losses for r in unbroken.reports]
    with_average, without = (load(trial.after(EPOCHS) / LAST) for trial in (averaged, unbroken))
    for part in ("model", "optimizer"):
        assert dict(flat(with_average[part])) == dict(flat(without[part]))
    assert with_average["average"] and not without["average"]


def test_the_average_starts_after_the_head_phase_which_others_share(
    unbroken: Unbroken, averaged: Unbroken
) -> None:
    assert_same(averaged.after(2), unbroken.after(2))
    kept, others = (
        {folder.name for folder in trial.cache.folder.iterdir()} for trial in (averaged, unbroken)
    )  # other tests keep more phases beside those of `unbroken`
    assert len(kept) == 3 and len(others) >= 3
    assert len(kept & others) == 1


def test_the_average_is_what_is_scored_and_kept(
    averaged: Unbroken, few: Splits, config: TrainConfig, tmp_path: Path
) -> None:
    last = load(averaged.after(EPOCHS) / LAST)
    best = load(averaged.place / "trial" / BEST)
    number = best["report"]["epoch"]
    kept = load(averaged.after(number) / LAST)
    changed = kept["average"]
    assert all(torch.equal(best["model"][name], tensor) for name, tensor in changed.items())
    assert any(not torch.equal(last["model"][n], t) for n, t in last["average"].items())

    torch.manual_seed(config.train.seed)
    detector = build(config.model, len(few.categories))
    load_trained_state(detector, best)
    canvases = open_canvases(few.val, config.model.image_size, tmp_path)
    results = detect(detector, few.val, canvases, batch_size=BATCH_SIZE["cpu"])
    metrics = score(GroundTruth(few.val), results, config.model.detections)
    assert metrics["map"] == averaged.reports[number - 1].map


@pytest.mark.parametrize("until", [2, 3, 4])
def test_an_averaged_trial_resumed_or_forked_has_the_same_bits(
    averaged: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path, until: int
) -> None:
    train = config.train.model_copy(update={"ema": 0.9})
    config = config.model_copy(update={"train": train})
    resumed = copytree(averaged.after(until), tmp_path / "resumed")
    train_until(config, few, resumed)
    assert_same(resumed, averaged.after(EPOCHS))
    cache = with_phases_until(until, averaged.cache, tmp_path / "phases")
    train_until(config, few, tmp_path / "fork", EPOCHS, reuse=cache)
    assert_same(tmp_path / "fork", averaged.after(EPOCHS))


def test_cached_features_are_scored_with_averaged_weights(
    tiny_config: Callable[..., TrainConfig], few: Splits, tmp_path: Path
) -> None:
    """The open stages behind cached features have the averaged weights."""
    changes = {"model.image_size": 64, "train.unfreeze.depth": 2, "train.ema": 0.9}
    maps = []
    for cached in ("off", 2):
        reports: list[EpochReport] = []
        config = tiny_config(changes | {"train.trunk_cache": cached})
        train_until(config, few, tmp_path / str(cached), reports=reports)
        maps.append([report.map for report in reports])
    assert maps[0] == pytest.approx(maps[1], abs=1e-3)
