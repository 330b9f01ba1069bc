"""`unfreeze export`, `evaluate` and `predict` on the command line."""

import json
import shutil
from pathlib import Path

import pytest

from search.commands.cli import main
from trainer.config import Data

from ..conftest import Trained

Captured = pytest.CaptureFixture[str]


def test_detections_into_a_missing_folder_are_bad_input(
    trained: Trained, tiny_data: Data, capsys: Captured
) -> None:
    shutil.copytree(trained.winner, "model")
    line = ["evaluate", "model", str(tiny_data.val), "--detections", "no/results.json"]
    assert main(line) == 2
    assert "no/results.json" in capsys.readouterr().err


def test_evaluate_can_answer_in_json(trained: Trained, tiny_data: Data, capsys: Captured) -> None:
    shutil.copytree(trained.winner, "model")
    assert main(["evaluate", "model", str(tiny_data.train.parent), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["split"] == "val"
    assert len(printed["figures"]) == 12 and printed["per_class"].keys() == {"red", "blue"}


def test_evaluate_measures_several_splits(
    trained: Trained, tiny_data: Data, capsys: Captured
) -> None:
    shutil.copytree(trained.winner, "model")
    line = ["evaluate", "model", str(tiny_data.train.parent), "--split", "train", "--split", "val"]
    assert main([*line, "--json"]) == 0
    train, val = json.loads(capsys.readouterr().out)["splits"]
    assert (train["split"], val["split"]) == ("train", "val")
    assert val["figures"] == trained.result.metrics["val"]["figures"] != train["figures"]
    assert main([*line, "--detections", "results.json"]) == 2
    assert capsys.readouterr().err == "--detections is one file: give one --split\n"
    assert not Path("results.json").exists()


def test_predict_with_an_unreadable_picture_is_1_and_draws_the_rest(
    trained: Trained, tiny_data: Data, capsys: Captured
) -> None:
    good = tiny_data.train.parent / "images" / "val-00.png"
    Path("bad.png").write_bytes(b"")
    line = ["predict", str(trained.winner), str(good), "bad.png", "--out", "out"]
    assert main(line) == 1
    assert "bad.png" in capsys.readouterr().err
    assert Path("out/val-00.jpg").is_file()


def test_export_by_name(trained: Trained, capsys: Captured) -> None:
    storage = str(trained.config.storage)
    assert main(["export", "once", "--trial", "0", "--storage", storage, "--out", "model"]) == 0
    assert capsys.readouterr().out == "wrote model\n"
    assert main(["export", "once", "--storage", storage, "--out", "model"]) == 2
