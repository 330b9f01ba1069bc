"""Detections carry the data set's ids, and pixels of the original pictures."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from trainer.config import TrainConfig
from trainer.data.canvas import letterbox
from trainer.data.dataset import Picture, Split, Splits
from trainer.evaluation.detections import detect, pack, unpack
from trainer.model.detectors import build

from .oracle import SIZE, Oracle, canvases, perfect

MakePicture = Callable[..., Picture]


MakeSplit = Callable[..., Split]


def test_packed_detections_are_the_same(tiny: Splits) -> None:
    results = detect(perfect(tiny.val), tiny.val, canvases(6))
    assert unpack(pack(results)) == results
    assert unpack(pack([])) == []
    large = [{**results[0], "image_id": 2**53 + 1}]  # no float has it
    assert unpack(pack(large)) == large


def test_detections_carry_the_sets_ids_and_original_pixels(
    make_picture: MakePicture, make_split: MakeSplit
) -> None:
    wide = make_picture(41, [(2, 30, 15, 45, 30)], size=(192, 96))
    tall = make_picture(17, [(1, 10, 20, 30, 40)], size=(60, 120))
    split = make_split(wide, tall)
    first, second = detect(perfect(split), split, canvases(2))
    assert (first["image_id"], first["category_id"]) == (41, 7)
    assert first["bbox"] == pytest.approx([30, 15, 45, 30], abs=1e-4)
    assert (second["image_id"], second["category_id"]) == (17, 3)
    assert second["bbox"] == pytest.approx([10, 20, 30, 40], abs=1e-4)
    assert json.dumps([first, second])


def test_boxes_are_clipped_to_the_picture(make_picture: MakePicture, make_split: MakeSplit) -> None:
    split = make_split(make_picture())  # 96 x 72 on a canvas of 64: the lower quarter is grey
    answer = {"boxes": torch.tensor([[-5.0, 30.0, 70.0, 64.0]]), "labels": torch.tensor([1])}
    oracle: Any = Oracle([answer])
    (only,) = detect(oracle, split, canvases(1))
    assert only["bbox"] == pytest.approx([0, 45, 96, 27])


def test_a_picture_is_seen_the_same_in_any_batch(
    tiny: Splits, tiny_config: Callable[..., TrainConfig]
) -> None:
    torch.manual_seed(0)
    model = tiny_config({"model.weights": "imagenet", "model.image_size": SIZE}).model
    detector = build(model, classes=2)
    with torch.no_grad():  # sure enough to find something
        detector.get_parameter("head.head.classification_head.cls_logits.bias").fill_(-2.0)
    store = np.stack([letterbox(picture, SIZE) for picture in tiny.val.pictures])
    single, batched = (detect(detector, tiny.val, store, batch_size=n) for n in (1, 6))
    assert len(single) == len(batched) > 0
    for one, other in zip(single, batched, strict=True):
        assert one["image_id"] == other["image_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
