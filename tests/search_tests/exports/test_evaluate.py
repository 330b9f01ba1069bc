"""`unfreeze evaluate`: a model's COCO figures on a split."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from search.exports.evaluate import evaluate_model
from trainer.config import Data, InputError
from trainer.export.bundle import load_export

from ..conftest import Trained

OUT = Path("out")


def test_evaluate_gives_the_stored_figures_again(
    model: Path, trained: Trained, tiny_data: Data
) -> None:
    measured = evaluate_model(str(model), tiny_data.train.parent, "val", Path(), OUT)
    stored = trained.result.metrics["val"]
    assert measured["figures"] == pytest.approx(stored["figures"], abs=1e-4, nan_ok=True)
    assert measured["per_class"] == pytest.approx(stored["per_class"], abs=1e-4, nan_ok=True)
    detections = json.loads(OUT.read_text())
    assert {d["category_id"] for d in detections} <= {3, 7}
    assert {d["image_id"] for d in detections} <= set(range(100, 106))
    assert all(d.keys() == {"image_id", "category_id", "bbox", "score"} for d in detections)


@pytest.mark.parametrize("detections", [None, 300])
def test_all_boxes_that_an_export_may_give_are_measured_beside_cocos_hundred(
    model: Path, tiny_data: Data, detections: int | None
) -> None:
    spec = json.loads((model / "spec.json").read_text())
    del spec["model"]["detections"]  # an export of an earlier version does not say it
    spec["model"] |= {"detections": detections} if detections else {}
    (model / "spec.json").write_text(json.dumps(spec))
    measured = evaluate_model(str(model), tiny_data.train.parent, "val", Path(), None)
    limit = detections or 100
    assert measured["detections"] == load_export(model)[0].head.detections_per_img == limit
    assert len(measured["figures"]) == 12
    assert ("mar_300" in measured["at_detections"]) == (detections == 300)
    stored = json.loads((model / "metrics.json").read_text())["val"]
    assert stored["at_detections"] == measured["at_detections"]


def test_one_json_is_the_requested_split(model: Path, trained: Trained, tiny_data: Data) -> None:
    assert tiny_data.val is not None
    measured = evaluate_model(str(model), tiny_data.val, "val", Path(), None)
    assert measured["figures"] == trained.result.metrics["val"]["figures"]


def test_each_look_at_test_is_counted(model: Path, tiny_data: Data) -> None:
    yaml = Path("data.yaml")
    yaml.write_text(f"data: {{train: {tiny_data.train}, test: {tiny_data.val}}}\n")
    for looks in (1, 2):
        evaluate_model(str(model), yaml, "test", Path(), None)
        stored = json.loads((model / "metrics.json").read_text())
        assert stored["test"]["looks"] == looks


def test_an_evaluation_on_other_data_leaves_the_stored_figures(
    model: Path, tiny_data: Data
) -> None:
    before = json.loads((model / "metrics.json").read_text())["val"]
    other = evaluate_model(str(model), tiny_data.train, "val", Path(), None)
    assert other["figures"] != before["figures"]
    assert json.loads((model / "metrics.json").read_text())["val"] == before


def test_a_missing_split_is_refused(model: Path, tiny_data: Data) -> None:
    with pytest.raises(InputError, match="has no test split"):
        evaluate_model(str(model), tiny_data.train.parent, "test", Path(), None)


def test_data_of_other_classes_is_refused_with_both(model: Path, tiny_data: Data) -> None:
    shutil.copytree(tiny_data.train.parent, Path("set"))
    content = json.loads(Path("set/val.json").read_text())
    content["categories"][0]["name"] = "green"
    Path("set/val.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"its classes \(3 green, 7 blue\) are not the model's"):
        evaluate_model(str(model), Path("set/val.json"), "val", Path(), None)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_figures_that_cannot_be_stored_are_returned_unless_the_disk_is_full(
    model: Path, tiny_data: Data, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("search.exports.evaluate.record_evaluation", refuse)
    arguments = (str(model), tiny_data.train.parent, "val", Path(), None)
    if number == errno.EROFS:
        assert "map" in evaluate_model(*arguments)["figures"]
    else:  # else a winner would have no figures, and nothing would say why
        with pytest.raises(OSError, match="No space left"):
            evaluate_model(*arguments)


@pytest.mark.parametrize("content", ["{bad", "[1]", '{"val": []}'])
def test_damaged_figures_are_refused(model: Path, tiny_data: Data, content: str) -> None:
    (model / "metrics.json").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.json is damaged.*; delete it and evaluate"):
        evaluate_model(str(model), tiny_data.train.parent, "val", Path(), None)
