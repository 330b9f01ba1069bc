"""A model card states what the export's folder holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import TrainConfig
from trainer.export.card import CARD, write_card

FIGURES = {"map": 0.5, "map_50": 0.8, "map_75": 0.6}


@pytest.fixture
def folder(tmp_path: Path, tiny_config: Callable[..., TrainConfig]) -> Path:
    """An export without its weights."""
    config = tiny_config({"model.weights": "imagenet"})
    spec: dict[str, Any] = {
        "format": 1,
        **config.model_dump(mode="json"),
        "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}],
        "pixels": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "data": "feed",
        "epoch": 4,
        "thresholds": {"red": 0.25, "blue": 0.625},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    return tmp_path


def card(folder: Path, metrics: dict[str, Any] | None = None) -> str:
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    write_card(folder, "cells")
    return (folder / CARD).read_text()


def test_it_states_classes_data_recipe_limits_and_licence(folder: Path) -> None:
    text = card(folder)
    assert text.startswith("# cells\n")
    for part in ("red (3), blue (7)", "`feed`", "after epoch 4", '"lr": 0.0005', "## Limits"):
        assert part in text
    assert "licence that timm states for them (apache-2.0)" in text
    assert "| val |" not in text


@pytest.mark.parametrize(
    ("weights", "text_part"),
    [("none", "trained from scratch"), ("/home/me/base.pth", "`base.pth`, whose licence is yours")],
)
def test_the_licence_is_timms_only_for_timms_weights(
    folder: Path, weights: str, text_part: str
) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    spec["model"]["weights"] = weights
    (folder / "spec.json").write_text(json.dumps(spec))
    text = card(folder)
    assert text_part in text and "apache" not in text and "/home" not in text


def test_it_shows_the_figures_and_the_operating_point(folder: Path) -> None:
    val = {"figures": FIGURES, "per_class": {"red": 0.4, "blue": None}}
    text = card(folder, {"val": val, "test": {**val, "looks": 2}})
    assert "| val | 0.500 | 0.800 | 0.600 | 0.400 | - |" in text
    assert "| test | 0.500 |" in text and "Test was evaluated 2 times." in text
    assert "| score from which a box counts | | | | 0.250 | 0.625 |" in text


def test_it_states_the_most_boxes_and_the_figures_with_all_of_them(folder: Path) -> None:
    assert "at most 100 boxes a picture" in card(folder)  # of an export without the field
    spec = json.loads((folder / "spec.json").read_text())
    spec["model"]["detections"] = 300
    (folder / "spec.json").write_text(json.dumps(spec))
    more = {"map": 0.7, "map_50": 0.9, "map_75": None}
    val = {"figures": FIGURES, "per_class": {"red": 0.4, "blue": None}, "detections": 300}
    text = card(folder, {"val": {**val, "at_detections": more}})
    assert "at most 300 boxes a picture" in text
    assert "| val | 0.500 | 0.800 |" in text
    assert "| val, 300 boxes a picture | 0.700 | 0.900 | - |" in text


def test_it_names_the_onnxruntime_that_an_onnx_file_needs(folder: Path) -> None:
    assert "onnxruntime" not in card(folder)
    (folder / "model.onnx").touch()
    assert "It needs onnxruntime 1.17 or newer." in card(folder)


def test_it_quotes_the_gain_of_a_search(folder: Path) -> None:
    val = {"figures": FIGURES, "per_class": {"red": 0.4, "blue": None}}
    assert "\n\nThat is more than luck.\n\n" in card(
        folder, {"val": val, "gain": "That is more than luck."}
    )
    assert card(folder, {"val": val, "gain": ""}) == card(folder, {"val": val})


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("model.safetensors", "unfreeze evaluate THIS_FOLDER DATA --split val"),
        ("model.onnx", 'onnxruntime.InferenceSession("model.onnx")'),
        ("model.pt2", 'torch.export.load("model.pt2")'),
        ("model.pt2", "unfreeze predict THIS_FOLDER/model.pt2 PICTURES"),
        ("model.onnx", "unfreeze predict THIS_FOLDER PICTURES"),
    ],
)
def test_it_shows_how_to_run_the_files_in_its_folder(folder: Path, file: str, shown: str) -> None:
    (folder / file).touch()
    text = card(folder)
    assert shown in text
    for code in text.split("```python\n")[1:]:
        compile(code.split("```")[0], CARD, "exec")


def test_names_are_escaped(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    names = ["a|b\n# <script>", "red_cell"]
    for category, name in zip(spec["categories"], names, strict=True):
        category["name"] = name
    spec["model"]["weights"] = "/home/me/`x`.pth"
    spec["thresholds"] = dict.fromkeys(names, 0.5)
    (folder / "spec.json").write_text(json.dumps(spec))
    val = {"figures": FIGURES, "per_class": dict.fromkeys(names, 0.4)}
    (folder / "metrics.json").write_text(json.dumps({"val": val}))
    write_card(folder, "my *model*")
    text = (folder / CARD).read_text()
    escaped = r"a\|b\\n\# &lt;script&gt;"
    assert text.startswith("# my \\*model\\*\n")
    assert f"classes: {escaped} (3), red_cell (7)." in text
    assert f"| AP75 | AP {escaped} | AP red_cell |\n" in text
    assert r"the file \`x\`.pth, whose" in text
    assert "<script>" not in text
