"""A trial: one report an epoch, equal bits when forked, one error for each way to fail."""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from math import ceil
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any

import pytest
import torch

from trainer.config import InputError, TrainConfig
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport
from trainer.evaluation.coco_metrics import GroundTruth, Metrics, score
from trainer.evaluation.detections import BATCH_SIZE
from trainer.machine_errors import OutOfMemoryError
from trainer.model.checkpoint import BEST, LAST, PREVIOUS, load, save
from trainer.training.engine import DivergedError, TrainingSummary
from trainer.training.fit import Result, fit
from trainer.training.phase_cache import PhaseCache

from .trials import EPOCHS, Unbroken, assert_same, train_until, with_phases_until

DEPTHS = [0, 0, 3, 5, 5]


FIRST_LOSSES = [
    {"classification": 1.095004, "bbox_regression": 1.400681},
    {"classification": 0.8702995, "bbox_regression": 1.355284},
    {"classification": 0.9396526, "bbox_regression": 1.247813},
]


"""Seeded: a refactor keeps them. Later ones differ between processors, by more than allowed."""


def test_each_epoch_is_reported_once_with_its_phase_and_depth(unbroken: Unbroken) -> None:
    reports = unbroken.reports
    assert [r.epoch for r in reports] == [1, 2, 3, 4, 5]
    assert [r.phase for r in reports] == ["head"] * 2 + ["unfreeze"] * 3
    assert [r.depth for r in reports] == DEPTHS
    assert [r.unfreeze_epoch for r in reports] == [0, 0, 1, 2, 3]
    assert not any(r.forked for r in reports)


def test_reports_are_finite_plain_values(unbroken: Unbroken) -> None:
    for report in unbroken.reports:
        json.dumps(asdict(report), allow_nan=False)
        assert report.seconds > 0 and report.images_per_second > 0
        assert report.losses


def test_reports_of_groups_say_which_stages_trained(unbroken: Unbroken) -> None:
    for report, depth in zip(unbroken.reports, DEPTHS, strict=True):
        for name, group in report.groups.items():
            trains = not name.startswith("stage") or int(name[5]) > 5 - depth
            assert (group.lr > 0) == trains == (group.trainable > 0)


def test_the_best_map_never_falls_and_its_checkpoint_is_kept(unbroken: Unbroken) -> None:
    maps = [r.map for r in unbroken.reports]
    assert [r.best_map for r in unbroken.reports] == [max(maps[: i + 1]) for i in range(EPOCHS)]
    best = maps.index(max(maps)) + 1
    assert unbroken.result == Result(max(maps), best, EPOCHS)
    assert load(unbroken.place / "trial" / BEST)["report"]["epoch"] == best


def test_the_seeded_losses_of_the_first_epochs_stay(unbroken: Unbroken) -> None:
    for report, expected in zip(unbroken.reports, FIRST_LOSSES, strict=False):
        assert report.losses == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("filed", [2, 3, 5])
def test_a_forked_trial_has_the_same_bits_and_reports_the_fork(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path, filed: int
) -> None:
    reports: list[EpochReport] = []
    cache = with_phases_until(filed, unbroken.cache, tmp_path / "phases")
    train_until(config, few, tmp_path / "fork", EPOCHS, reports, cache)
    assert [r.forked for r in reports] == [True] * filed + [False] * (EPOCHS - filed)
    assert_same(tmp_path / "fork", unbroken.after(EPOCHS))


def test_trials_that_differ_after_the_head_phase_share_only_that_phase(
    unbroken: Unbroken, tiny_config: Callable[..., TrainConfig], few: Splits, tmp_path: Path
) -> None:
    other = tiny_config({"model.image_size": 64, "train.unfreeze.depth": 1})
    reports: list[EpochReport] = []
    train_until(other, few, tmp_path / "fork", 2, reports, unbroken.cache)
    assert [(r.epoch, r.depth, r.forked) for r in reports] == [(1, 0, True), (2, 0, True)]
    assert_same(tmp_path / "fork", unbroken.after(2))


def test_a_resumed_fork_still_reports_the_fork(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path
) -> None:
    reports: list[EpochReport] = []
    cache = with_phases_until(2, unbroken.cache, tmp_path / "phases")
    train_until(config, few, tmp_path / "fork", 1, reuse=cache)
    train_until(config, few, tmp_path / "fork", 2, reports, cache)
    assert [r.forked for r in reports] == [True, True]


def test_a_damaged_head_phase_is_deleted_and_trained_again(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path
) -> None:
    cache = with_phases_until(2, unbroken.cache, tmp_path / "phases")
    (entry,) = cache.folder.iterdir()
    os.truncate(entry / LAST, 1000)
    reports: list[EpochReport] = []
    train_until(config, few, tmp_path / "trial", 2, reports, cache)
    assert [r.forked for r in reports] == [False, False]
    assert_same(tmp_path / "trial", unbroken.after(2))
    assert_same(cache.folder / entry.name, unbroken.after(2))


@pytest.mark.parametrize("is_between_files", [False, True])
def test_a_phase_whose_worker_was_killed_before_storing_it_is_stored_later(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path, is_between_files: bool
) -> None:
    folder = copytree(unbroken.after(2), tmp_path / "trial")
    if is_between_files:  # `best.pt` is of the next epoch, `last.pt` is not
        copyfile(unbroken.after(3) / BEST, folder / BEST)
        (folder / LAST).rename(folder / PREVIOUS)
    cache = PhaseCache(tmp_path / "phases")
    train_until(config, few, folder, until=3, reuse=cache)
    filed = [load(place / LAST)["reports"][-1]["epoch"] for place in cache.folder.iterdir()]
    assert sorted(filed) == ([3] if is_between_files else [2, 3])
    assert_same(folder, unbroken.after(3))


def test_a_trial_that_changed_its_environment_stores_no_phases(
    unbroken: Unbroken,
    config: TrainConfig,
    few: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copytree(unbroken.after(1), tmp_path / "trial")
    cache = PhaseCache(tmp_path / "phases")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(
            "trainer.training.trial_state.environment", lambda device: {"threads": "others"}
        )
        train_until(config, few, folder, until=3, reuse=cache)
    reports: list[EpochReport] = []
    train_until(config, few, folder, 4, reports, cache)  # back again
    assert not cache.folder.exists()
    here = unbroken.reports[0].environment
    other = {"threads": "others"}
    assert here["torch"] and [r.environment for r in reports] == [here, other, other, here]


def test_cached_features_do_not_change_the_losses(
    unbroken: Unbroken, tiny_config: Callable[..., TrainConfig], few: Splits, tmp_path: Path
) -> None:
    deep = {"train.unfreeze.depth": "all", "train.unfreeze.batch_norm": "adapt"}
    config = tiny_config({"model.image_size": 64, "train.trunk_cache": 4, **deep})
    reports: list[EpochReport] = []
    train_until(config, few, tmp_path / "cached", 3, reports, unbroken.cache)
    assert not any(report.forked for report in reports)  # other bits are another phase
    assert [report.images_from_cache for report in reports] == [8 + 4] * 3
    for report, plain in zip(reports, unbroken.reports[:3], strict=True):
        assert report.losses == pytest.approx(plain.losses, rel=1e-4)
        assert not plain.images_from_cache


def allocate_too_much() -> None:
    torch.empty(2**55, dtype=torch.uint8)


def raise_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")


def raise_python() -> None:
    raise MemoryError


def raise_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def raise_pinned() -> None:
    raise RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`")


def raise_bug() -> None:
    raise RuntimeError("a bug")


def fails(cause: Callable[[], None]) -> bool:
    cause()
    return True


@pytest.mark.parametrize(
    ("cause", "raised", "message"),
    [
        (allocate_too_much, OutOfMemoryError, "can't allocate memory"),
        (raise_cuda, OutOfMemoryError, "CUDA out of memory. Tried to allocate 2 GiB.$"),
        (raise_cublas, OutOfMemoryError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        (raise_pinned, OutOfMemoryError, "CUDA error: out of memory$"),
        (raise_python, OutOfMemoryError, "no memory"),
        (raise_bug, RuntimeError, "a bug"),
    ],
)
def test_every_lack_of_memory_is_one_error_but_a_bug_is_not(
    unbroken: Unbroken,
    config: TrainConfig,
    few: Splits,
    tmp_path: Path,
    cause: Callable[[], None],
    raised: type[Exception],
    message: str,
) -> None:
    folder = copytree(unbroken.after(1), tmp_path / "trial")
    with pytest.raises(raised, match=message) as caught:
        fit(config, few, folder, lambda _: fails(cause))
    assert type(caught.value) is raised


def test_a_depth_beyond_the_backbone_is_reported_before_anything_is_written(
    tiny_config: Callable[..., TrainConfig], few: Splits, tmp_path: Path
) -> None:
    config = tiny_config({"model.image_size": 64, "train.unfreeze.depth": 6})
    with pytest.raises(InputError, match="legal: 0 to 5, or all"):
        train_until(config, few, tmp_path / "trial")
    assert not (tmp_path / "trial").exists()


def test_a_trial_that_diverges_keeps_its_checkpoints(
    unbroken: Unbroken, config: TrainConfig, few: Splits, tmp_path: Path
) -> None:
    folder = copytree(unbroken.after(1), tmp_path / "trial")
    poisoned = load(folder / LAST)
    next(t for name, t in poisoned["model"].items() if name.startswith("neck.")).fill_(torch.nan)
    save(poisoned, folder / LAST)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    reports: list[EpochReport] = []
    with pytest.raises(DivergedError, match="not finite at epoch 2, step 0"):
        train_until(config, few, folder, reports=reports)
    assert [report.epoch for report in reports] == [1]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("skipped", ["all", "but one"])
def test_a_trial_whose_steps_were_all_skipped_diverges(
    config: TrainConfig,
    few: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    skipped: str,
) -> None:
    def train_nothing(*arguments: Any, epoch: int, **_: Any) -> TrainingSummary:
        return TrainingSummary(
            {"all": 0.5}, len(list(arguments[3])) - (skipped == "but one" and epoch == 1)
        )

    monkeypatch.setattr("trainer.training.fit.train_one_epoch", train_nothing)
    reports: list[EpochReport] = []
    if skipped == "but one":
        assert train_until(config, few, tmp_path / "trial", EPOCHS + 1).epochs == EPOCHS
        return
    with pytest.raises(DivergedError, match="no step was taken"):
        train_until(config, few, tmp_path / "trial", EPOCHS + 1, reports)
    assert [report.skipped for report in reports] == [2] * EPOCHS


def test_on_step_is_called_for_every_step(config: TrainConfig, few: Splits, tmp_path: Path) -> None:
    heard, steps = [0], 0

    def on_step() -> None:
        nonlocal steps
        steps += 1

    def report(_: EpochReport) -> bool:
        heard.append(steps)
        return len(heard) < 4

    fit(config, few, tmp_path / "trial", report, on_step=on_step)
    each = 2 + ceil(len(few.val.pictures) / BATCH_SIZE["cpu"])
    assert [after - before >= each for before, after in pairwise(heard)] == [True] * 3


def test_without_a_head_phase_the_first_epoch_unfreezes(
    tiny_config: Callable[..., TrainConfig], few: Splits, tmp_path: Path
) -> None:
    config = tiny_config({"model.image_size": 64, "train.head.epochs": 0})
    reports: list[EpochReport] = []
    train_until(config, few, tmp_path / "trial", 1, reports)
    (only,) = reports
    assert (only.phase, only.depth, only.unfreeze_epoch) == ("unfreeze", 2, 1)


def test_an_epoch_is_scored_with_all_of_its_detections(
    tiny_config: Callable[..., TrainConfig],
    few: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def counted(truth: GroundTruth, results: list[dict[str, Any]], detections: int) -> Metrics:
        most = Counter(result["image_id"] for result in results).most_common(1)[0][1]
        assert 100 < most <= detections == 120
        return score(truth, results, detections)

    monkeypatch.setattr("trainer.training.fit.score", counted)
    wide = {"model.image_size": 96, "model.detections": 120, "train.head.epochs": 0}
    config = tiny_config({**wide, "model.detector": "ssd"})
    assert train_until(config, few, tmp_path / "trial", 1).epochs == 1
