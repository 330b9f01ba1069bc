"""Backbones by name: three strides, stages, and weights that fit or are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainer.config import BadInput
from trainer.model.backbone_weights import load_weights
from trainer.model.backbones import TESTED, Backbone, build, count_stages, size_errors

LITE0, SMALL = "tf_efficientnet_lite0", "test_resnet"
STAGES = {LITE0: 5, "resnet50": 5, "vgg16": 5, "inception_v3": 5, "convnext_tiny": 4}


def error_of(name: str, weights: str = "none") -> str:
    with pytest.raises(BadInput) as raised:
        build(name, weights)
    (error,) = raised.value.errors
    return error


@pytest.mark.parametrize("name", STAGES)
def test_a_backbone_has_the_stages_counted(
    without_tensors: Callable[[str], Backbone], name: str
) -> None:
    assert len(without_tensors(name).stages) == count_stages(name) == STAGES[name]


@pytest.mark.parametrize("name", STAGES)
def test_three_maps_come_out_with_the_channels_and_at_the_strides_told(
    without_tensors: Callable[[str], Backbone], name: str
) -> None:
    """Anchors are laid out by the maps' sizes: at other strides they lie beside what is seen."""
    backbone = without_tensors(name)
    with torch.device("meta"):
        maps = backbone.module.eval()(torch.empty(1, 3, 320, 320))
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    short = 3 if name == "inception_v3" else 0  # its convolutions are not padded: detectors mend it
    for (height, width), side in zip((m.shape[2:] for m in maps), (40, 20, 10), strict=True):
        assert height == width and side - short <= height <= side


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_small_patch14_dinov2"])
def test_a_vision_transformer_is_refused_saying_why(name: str) -> None:
    error = error_of(name)
    assert error.startswith(f"model.backbone: {name} has feature maps at strides ")
    assert "needs 8, 16 and 32" in error
    with pytest.raises(BadInput):
        count_stages(name)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("inception_v3", 64, "64 is no size for inception_v3 (the next that is: 96)"),
        ("swin_tiny_patch4_window7_224", 320, "Input height (320) doesn't match model (224)."),
        (
            "swin_tiny_patch4_window7_224",
            224,
            "one is (1, 28, 28, 192), not (1, 192, height, width)",
        ),
    ],
)
def test_a_canvas_that_a_backbone_cannot_look_at_is_refused_saying_why(
    name: str, size: int, message: str
) -> None:
    (error,) = size_errors(name, size)
    assert error.endswith(message)


def test_the_tested_ones_take_the_usual_canvas() -> None:
    assert [name for name in TESTED if size_errors(name, 96) or size_errors(name, 320)] == []


def test_a_backbone_whose_levels_end_nowhere_is_refused_saying_why() -> None:
    assert error_of("hiera_tiny_224").endswith("timm does not tell where its levels end")


@pytest.mark.parametrize(("wrong", "right"), [("resnt50", "resnet50"), ("vgg_16", "vgg16")])
def test_an_unknown_name_is_told_with_the_nearest(wrong: str, right: str) -> None:
    assert error_of(wrong) == f"model.backbone: timm has no {wrong!r}; did you mean {right}?"


@pytest.mark.parametrize("name", ["", "zzzzzzzzzzzz", "/etc/passwd"])
def test_a_name_near_nothing_is_told_with_where_to_look(name: str) -> None:
    assert error_of(name).endswith("; `unfreeze models` lists those tested, timm.list_models() all")


def test_an_unknown_tag_of_a_known_model_is_told() -> None:
    error = error_of("resnet50.nonsense")
    assert "nonsense" in error
    assert "strides" not in error


def test_the_packaged_weights_are_the_offline_default() -> None:
    backbone = build(LITE0, "imagenet")
    assert backbone.pixels.mean == (127 / 255,) * 3
    assert backbone.pixels.std == (128 / 255,) * 3
    state = backbone.module.state_dict()
    means = [tensor for name, tensor in state.items() if name.endswith("running_mean")]
    assert means and all(mean.abs().sum() > 0 for mean in means)  # a new BatchNorm has zeros


def test_without_weights_they_follow_from_the_seed() -> None:
    torch.manual_seed(0)
    one = build(SMALL, "none").module.state_dict()
    torch.manual_seed(0)
    same = build(SMALL, "none").module.state_dict()
    other = build(SMALL, "none").module.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def classifier(name: str) -> dict[str, Tensor]:
    """Tensors of timm's classifier, each of its own value, without VGG's large last layers."""
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    return {
        n: torch.full(t.shape, i, dtype=t.dtype)
        for i, (n, t) in enumerate(state.items())
        if not n.startswith(("pre_logits", "head.fc"))
    }


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (LITE0, "pth"),
        (LITE0, "safetensors"),
        (LITE0, "state_dict"),
        ("resnet18", "pth"),
        ("vgg11", "pth"),
        ("convnext_atto", "pth"),
    ],
)
def test_a_file_of_the_classifier_fills_the_backbone(tmp_path: Path, name: str, form: str) -> None:
    state = classifier(name)
    file = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state} if form == "state_dict" else state, file)
    with torch.device("meta"):
        module = build(name, "none").module
    module.to_empty(device="cpu")  # VGG takes long to be filled at random
    load_weights(module, name, str(file))
    loaded = module.state_dict()
    renamed = {n.replace(".", "_"): tensor for n, tensor in state.items()}
    for own, tensor in loaded.items():
        assert torch.equal(tensor, renamed[own.replace(".", "_")]), own


def test_an_export_is_a_source_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = build(SMALL, "none").module.state_dict()
    named = {f"backbone.{name}": tensor.contiguous() for name, tensor in state.items()}
    save_file({**named, "head.bias": torch.ones(2)}, tmp_path / "model.safetensors")
    pixels = {"mean": [0.25, 0.5, 0.75], "std": [0.5, 0.25, 0.125]}
    (tmp_path / "spec.json").write_text(json.dumps({"pixels": pixels}))
    backbone = build(SMALL, str(tmp_path))
    loaded = backbone.module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    assert (backbone.pixels.mean, backbone.pixels.std) == ((0.25, 0.5, 0.75), (0.5, 0.25, 0.125))


@pytest.mark.parametrize("spec", ["{", "[]", "{}", '{"pixels": {"mean": 1, "std": 1}}'])
def test_an_export_with_a_damaged_spec_is_refused(tmp_path: Path, spec: str) -> None:
    state = {
        f"backbone.{n}": t.contiguous() for n, t in build(SMALL, "none").module.state_dict().items()
    }
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "spec.json").write_text(spec)
    assert error_of(SMALL, str(tmp_path)).startswith(f"model.weights: {tmp_path / 'spec.json'} is ")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(classifier("resnet10t"), tmp_path / "a.pth")
    error = error_of(SMALL, str(tmp_path / "a.pth"))
    assert error.startswith(f"model.weights: {tmp_path / 'a.pth'} does not fit {SMALL}")


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    wide = {
        name: torch.cat([tensor, tensor]) if tensor.ndim else tensor
        for name, tensor in classifier(SMALL).items()
    }
    torch.save(wide, tmp_path / "a.pth")
    assert f"does not fit {SMALL}" in error_of(SMALL, str(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "is no readable file of plain tensors"),
        ("a.pth", b"no weights", "is no readable file of plain tensors"),
        ("a.safetensors", b"no weights", "is no readable file of plain tensors"),
        ("a.pth", Path("an object"), "is no readable file of plain tensors"),
        ("a.pth", [1, 2], "holds no state_dict of tensors"),
        ("a.pth", {"a": 1}, "holds no state_dict of tensors"),
    ],
)
def test_a_file_of_anything_else_is_refused(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    error = error_of(SMALL, str(file))
    assert error.startswith(f"model.weights: {file} {message}")


def test_a_missing_file_is_told_with_what_is_legal(tmp_path: Path) -> None:
    error = error_of(SMALL, str(tmp_path / "gone.pth"))
    assert error == (
        f"model.weights: no file {tmp_path / 'gone.pth'} "
        "(legal: imagenet, none, a file, or an export)"
    )


def test_weights_that_cannot_be_fetched_are_told_with_a_way_out() -> None:
    error = error_of("resnet10t", "imagenet")  # conftest takes the hub offline
    assert error.startswith("model.weights: the weights of resnet10t cannot be fetched")
    assert "give its path as model.weights" in error
