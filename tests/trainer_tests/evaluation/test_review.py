"""What is left to look at of a finished trial."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trainer.config import TrainConfig
from trainer.data.dataset import Category, Splits
from trainer.evaluation import review as module
from trainer.evaluation import sheets
from trainer.evaluation.coco_metrics import GroundTruth
from trainer.evaluation.drawing import Box
from trainer.evaluation.review import CLASSES, CURVES, MISSES, PREDICTIONS, REVIEW, mistakes, review
from trainer.evaluation.sheets import TILE, TITLE, make_pair
from trainer.training.fit import fit

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def config(tiny_config: Callable[..., TrainConfig]) -> TrainConfig:
    return tiny_config({"train.head.epochs": 1, "train.unfreeze.epochs": 1})


@pytest.fixture(scope="module")
def folder(tiny: Splits, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished trial, reviewed."""
    folder = tmp_path_factory.mktemp("reviewed")
    fit(config, tiny, folder, lambda _: True)
    steps: list[int] = []
    review(config, tiny.val, folder, on_step=lambda: steps.append(1))
    assert len(steps) == 3  # two pictures a batch
    return folder


def test_a_review_is_pictures_curves_and_a_table(folder: Path, tiny: Splits) -> None:
    place = folder / REVIEW
    assert {f.name for f in place.iterdir()} == {PREDICTIONS, MISSES, CURVES, CLASSES}
    table = json.loads((place / CLASSES).read_text())
    assert table["columns"] == ["class", "boxes in val", "AP", "AP50"]
    assert [row[0] for row in table["data"]] == ["red", "blue"]
    assert sum(row[1] for row in table["data"]) == sum(len(p.boxes) for p in tiny.val.pictures)
    assert all(0 <= ap <= 1 for row in table["data"] for ap in row[2:])
    with Image.open(place / PREDICTIONS) as sheet:  # six pairs, two a row, pictures 4 to 3
        assert sheet.height == 3 * (TILE * 3 // 4 + TITLE) + 2 * sheets.GAP


def test_it_is_made_once(folder: Path, config: TrainConfig, tiny: Splits) -> None:
    before = {f.name: f.stat().st_mtime_ns for f in (folder / REVIEW).iterdir()}
    review(config, tiny.val, folder, on_step=lambda: pytest.fail("again"))
    assert {f.name: f.stat().st_mtime_ns for f in (folder / REVIEW).iterdir()} == before


def test_what_the_best_epoch_detected_is_not_detected_again(
    folder: Path, config: TrainConfig, tiny: Splits, tmp_path: Path
) -> None:
    result = fit(config, tiny, tmp_path, lambda _: True)
    review(config, tiny.val, tmp_path, result.detections, lambda: pytest.fail("detected again"))
    for name in (PREDICTIONS, MISSES, CURVES, CLASSES):
        content = (tmp_path / REVIEW / name).read_bytes()
        assert content == (folder / REVIEW / name).read_bytes()


def test_a_trial_that_only_went_on_does_not_know_the_detections(
    config: TrainConfig, tiny: Splits, tmp_path: Path
) -> None:
    assert fit(config, tiny, tmp_path, lambda _: True).detections is not None
    assert fit(config, tiny, tmp_path, lambda _: True).detections is None


def test_what_fails_is_logged_and_not_raised(
    config: TrainConfig, tiny: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        review(config, tiny.val, tmp_path)  # there is no checkpoint
        review(config, tiny.val, tmp_path / "nowhere")
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}: its review could not be written",
        f"{tmp_path / 'nowhere'}: its review could not be written",
    ]


def test_an_error_of_the_accelerator_is_not_swallowed(
    config: TrainConfig, tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(module, "_detect", fail)
    with pytest.raises(torch.AcceleratorError):
        review(config, tiny.val, tmp_path)


def detection(image: int, category: int, *box: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": 0.9}


def test_mistakes_are_missed_boxes_and_wrong_ones(make_picture: Make, make_split: Make) -> None:
    split = make_split(
        make_picture(1, [(1, 10, 10, 20, 20), (2, 50, 10, 20, 20)]),
        make_picture(2, [(1, 10, 10, 20, 20)]),
        make_picture(3, [(1, 10, 10, 20, 20), (1, 50, 10, 30, 30)], crowd=(1,)),
        make_picture(4),
    )
    results = [
        detection(1, 3, 10, 10, 20, 20),
        detection(1, 3, 50, 10, 20, 20),  # there, but of the other class
        detection(2, 3, 40, 40, 20, 20),
        detection(3, 3, 52, 12, 25, 25),  # within a crowd: neither right nor wrong
        detection(4, 7, 10, 10, 20, 20),
    ]
    assert mistakes(GroundTruth(split), results) == {1: (1, 1), 2: (1, 1), 3: (1, 0), 4: (0, 1)}
    assert mistakes(GroundTruth(split), []) == {1: (2, 0), 2: (1, 0), 3: (1, 0), 4: (0, 0)}


def test_no_box_is_missed_for_being_one_of_many(make_picture: Make, make_split: Make) -> None:
    truth = GroundTruth(make_split(make_picture(1, [(1, 20 * i, 0, 10, 10) for i in range(150)])))
    detection = [
        {"image_id": 1, "category_id": 3, "bbox": [20.0 * i, 0, 10, 10], "score": 0.9}
        for i in range(150)
    ]
    assert mistakes(truth, detection, 300) == {1: (0, 0)}


def test_a_detector_that_finds_nothing_has_a_review_too(
    config: TrainConfig,
    folder: Path,
    tiny: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "best.pt").write_bytes((folder / "best.pt").read_bytes())
    monkeypatch.setattr(module, "detect", lambda *_, **__: [])
    review(config, tiny.val, tmp_path)
    table = json.loads((tmp_path / REVIEW / CLASSES).read_text())
    assert [row[2:] for row in table["data"]] == [[0.0, 0.0], [0.0, 0.0]]
    assert (tmp_path / REVIEW / MISSES).is_file()


@pytest.mark.parametrize("name", ["$_$", "_b", "\x1b[2J", r"$\frac{1}{0}$"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_name_of_a_class_loses_a_review(tiny: Splits, tmp_path: Path, name: str) -> None:
    split = replace(tiny.val, categories=(Category(3, name), tiny.val.categories[1]))
    module._review(split, [], tmp_path, 100)
    assert {file.name for file in tmp_path.iterdir()} == {PREDICTIONS, MISSES, CURVES, CLASSES}
    box = Box(split.categories[0], 0.9, (1.0, 1.0, 9.0, 9.0))
    make_pair(split, split.pictures[0], {split.pictures[0].id: [box]}, "")
