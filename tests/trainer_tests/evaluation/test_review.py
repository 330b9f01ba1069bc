"""What is left to look at of a finished trial."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config import TrainConfig
from trainer.data.dataset import Category, Splits
from trainer.evaluation import review as module
from trainer.evaluation.coco_metrics import Truth
from trainer.evaluation.predict import Box
from trainer.evaluation.review import (
    CLASSES,
    CURVES,
    MISSES,
    PREDICTIONS,
    REVIEW,
    TILE,
    TITLE,
    mistakes,
    review,
)
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
        assert sheet.height == 3 * (TILE * 3 // 4 + TITLE) + 2 * module.GAP


@pytest.mark.parametrize("size", [(96, 72), (400, 300), (900, 20)])
def test_a_pair_shows_whole_pictures_with_boxes_in_their_places(
    make_picture: Make, make_split: Make, tmp_path: Path, size: tuple[int, int]
) -> None:
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 2 :, width // 2 :] = (0, 200, 0)  # the last quarter alone
    Image.fromarray(pixels).save(tmp_path / "quarter.png")
    corner = (width / 2, height / 2, width / 2, height / 2)
    picture = make_picture(1, [(1, *corner)], size=size, file=tmp_path / "quarter.png")
    split = make_split(picture)
    boxes = {1: [Box(split.categories[0], 0.9, corner)]}
    pair = np.asarray(module._pair(split, picture, boxes, ""))[TITLE:].astype(int)
    across, down = TILE, max(1, round(height * TILE / width))
    assert pair.shape[:2] == (down, 2 * across + 2)
    for left in (0, across + 2):
        half = pair[:, left : left + across]
        green = (half == (0, 200, 0)).all(axis=2)
        assert not green[:, : across // 2 - 1].any() and not green[: down // 2 - 1].any()
        if down > 60:  # else its box and name cover it
            assert green[down * 3 // 4, across * 3 // 4]
        drawn = ~green & half.any(axis=2)  # the box, at the picture's lower right corner
        assert drawn[-1, -1] and not drawn[0, 0]


def test_it_is_made_once(folder: Path, config: TrainConfig, tiny: Splits) -> None:
    before = {f.name: f.stat().st_mtime_ns for f in (folder / REVIEW).iterdir()}
    review(config, tiny.val, folder, on_step=lambda: pytest.fail("again"))
    assert {f.name: f.stat().st_mtime_ns for f in (folder / REVIEW).iterdir()} == before


def test_what_the_best_epoch_found_is_not_detected_again(
    folder: Path, config: TrainConfig, tiny: Splits, tmp_path: Path
) -> None:
    result = fit(config, tiny, tmp_path, lambda _: True)
    review(config, tiny.val, tmp_path, result.found, lambda: pytest.fail("detected again"))
    for name in (PREDICTIONS, MISSES, CURVES, CLASSES):
        own = (tmp_path / REVIEW / name).read_bytes()
        assert own == (folder / REVIEW / name).read_bytes()


def test_a_trial_that_only_went_on_does_not_know_what_was_found(
    config: TrainConfig, tiny: Splits, tmp_path: Path
) -> None:
    assert fit(config, tiny, tmp_path, lambda _: True).found is not None
    assert fit(config, tiny, tmp_path, lambda _: True).found is None


def test_what_fails_is_told_and_not_raised(
    config: TrainConfig, tiny: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        review(config, tiny.val, tmp_path)  # there is no checkpoint
        review(config, tiny.val, tmp_path / "nowhere")
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}: its review could not be written",
        f"{tmp_path / 'nowhere'}: its review could not be written",
    ]


def test_an_accelerators_own_error_is_not_swallowed(
    config: TrainConfig, tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(module, "_detections", fail)
    with pytest.raises(torch.AcceleratorError):
        review(config, tiny.val, tmp_path)


def found(image: int, category: int, *box: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": 0.9}


def test_mistakes_are_missed_boxes_and_wrong_ones(make_picture: Make, make_split: Make) -> None:
    split = make_split(
        make_picture(1, [(1, 10, 10, 20, 20), (2, 50, 10, 20, 20)]),
        make_picture(2, [(1, 10, 10, 20, 20)]),
        make_picture(3, [(1, 10, 10, 20, 20), (1, 50, 10, 30, 30)], crowd=(1,)),
        make_picture(4),
    )
    results = [
        found(1, 3, 10, 10, 20, 20),
        found(1, 3, 50, 10, 20, 20),  # there, but of the other class
        found(2, 3, 40, 40, 20, 20),
        found(3, 3, 52, 12, 25, 25),  # within a crowd: neither right nor wrong
        found(4, 7, 10, 10, 20, 20),
    ]
    assert mistakes(Truth(split), results) == {1: (1, 1), 2: (1, 1), 3: (1, 0), 4: (0, 1)}
    assert mistakes(Truth(split), []) == {1: (2, 0), 2: (1, 0), 3: (1, 0), 4: (0, 0)}


@pytest.mark.parametrize("results", [[], [found(1, 7, 10, 10, 20, 20)]])
def test_a_class_without_boxes_has_no_figures_whatever_is_found(
    make_picture: Make, make_split: Make, tmp_path: Path, results: list[Any]
) -> None:
    truth = Truth(make_split(make_picture(1, [(1, 10, 10, 20, 20)])))
    module._write_classes(truth, results, tmp_path, 100)
    table = json.loads((tmp_path / CLASSES).read_text())
    assert table["data"] == [["red", 1, 0.0, 0.0], ["blue", 0, None, None]]


def test_no_box_is_missed_for_being_one_of_many(make_picture: Make, make_split: Make) -> None:
    truth = Truth(make_split(make_picture(1, [(1, 20 * i, 0, 10, 10) for i in range(150)])))
    found = [
        {"image_id": 1, "category_id": 3, "bbox": [20.0 * i, 0, 10, 10], "score": 0.9}
        for i in range(150)
    ]
    assert mistakes(truth, found, 300) == {1: (0, 0)}


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
    module._pair(split, split.pictures[0], {split.pictures[0].id: [box]}, "")


def test_pictures_of_one_name_are_told_apart(
    make_picture: Make, make_split: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        module.ImageDraw.ImageDraw, "text", lambda self, at, text, **_: written.append(text)
    )
    for name in ("a/x.png", "b/x.png", "b/y\x1b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (96, 72)).save(tmp_path / name)
    names = ("a/x.png", "b/x.png", "b/y\x1b.png")
    split = make_split(*(make_picture(i, file=tmp_path / name) for i, name in enumerate(names)))
    module._write_sheet(split, split.pictures, {}, {}, tmp_path / "sheet.jpg")
    assert [t for t in written if t.endswith("truth")] == [
        "a/x.png: truth",
        "b/x.png: truth",
        r"y\x1b.png: truth",
    ]
