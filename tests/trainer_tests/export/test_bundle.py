"""Exports: what spec.json says, when one is refused, and pictures."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from trainer.config import InputError, TrainConfig
from trainer.data.dataset import Category, Split
from trainer.export.bundle import export, write_pictures
from trainer.model.checkpoint import BEST, pretrained_digest, save, trained_state
from trainer.model.detectors import build

CATEGORIES = (Category(3, "red"), Category(7, "blue"))
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LITE0 = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}

MakeConfig = Callable[..., TrainConfig]


def exported(config: TrainConfig, place: Path) -> dict[str, Any]:
    """Export a detector whose neck and head alone were trained; returns its spec."""
    torch.manual_seed(config.train.seed)
    detector = build(config.model, len(CATEGORIES))
    kept = {"pretrained": pretrained_digest(detector), "report": {"epoch": 1}}
    save(kept | {"model": trained_state(detector, 0)}, place / BEST)
    export(place / BEST, config, CATEGORIES, "data", place / "out")
    spec: dict[str, Any] = json.loads((place / "out" / "spec.json").read_text())
    return spec


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_spec_holds_digest_and_normalization_of_the_packaged_weights(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    spec = exported(tiny_config({"model.weights": "imagenet"}), tmp_path)
    assert spec["weights_sha256"].startswith("57934424")
    assert spec["pixels"] == LITE0


@pytest.mark.parametrize(
    ("model", "pixels"),
    [
        ({"backbone": "resnet18"}, IMAGENET),
        ({"backbone": "tf_efficientnet_lite0"}, HALF),
        ({"detector": "ssdlite320_mobilenet_v3_large"}, HALF),
    ],
)
def test_a_spec_without_pretrained_weights_holds_no_digest(
    tiny_config: MakeConfig, tmp_path: Path, model: dict[str, str], pixels: Any
) -> None:
    spec = exported(tiny_config({f"model.{k}": v for k, v in model.items()}), tmp_path)
    assert (spec["weights_sha256"], spec["pixels"]) == (None, pixels)


def test_a_spec_holds_the_digest_of_a_weights_file_or_earlier_export(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet18").state_dict(), file)
    backbone = {"model.backbone": "resnet18"}
    first = exported(tiny_config({**backbone, "model.weights": str(file)}), tmp_path / "first")
    assert (first["weights_sha256"], first["pixels"]) == (sha256(file), IMAGENET)
    earlier = tmp_path / "first" / "out"
    again = exported(tiny_config({**backbone, "model.weights": str(earlier)}), tmp_path / "again")
    assert again["weights_sha256"] == sha256(earlier / "model.safetensors")
    assert again["pixels"] == IMAGENET


def test_an_export_is_refused_when_the_weights_file_was_replaced(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    config = tiny_config({"model.backbone": "resnet18", "model.weights": str(file)})
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, file)
    exported(config, tmp_path)
    torch.save(state | {"bn1.bias": state["bn1.bias"] + 1}, file)
    with pytest.raises(
        InputError, match=r"model\.weights: what is there now is not what this trial"
    ):
        export(tmp_path / BEST, config, CATEGORIES, "data", tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_pictures_with_the_same_name_are_all_drawn(
    tiny_config: MakeConfig, tmp_path: Path, make_picture: Callable[..., Any]
) -> None:
    exported(tiny_config(), tmp_path)
    pictures = []
    for i, name in enumerate(("a/x.png", "b/x.png", "b/X.jpg", "b/y.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (96, 72)).save(tmp_path / name)
        pictures.append(make_picture(i, file=tmp_path / name))
    write_pictures(tmp_path / "out", Split("val", tuple(pictures), CATEGORIES))
    drawn = sorted(file.name for file in (tmp_path / "out" / "pictures").iterdir())
    assert drawn == ["X-3.jpg", "x-2.jpg", "x.jpg", "y.jpg"]
