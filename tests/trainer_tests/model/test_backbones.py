"""Backbones by name: three strides, stages, and weights that fit or are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer.config import InputError
from trainer.model.backbones import TESTED_BACKBONES, Backbone, build, count_stages, size_errors

LITE0, SMALL = "tf_efficientnet_lite0", "test_resnet"
STAGES = {LITE0: 5, "resnet50": 5, "vgg16": 5, "inception_v3": 5, "convnext_tiny": 4}


def error_of(name: str, weights: str = "none") -> str:
    with pytest.raises(InputError) as raised:
        build(name, weights)
    (error,) = raised.value.errors
    return error


@pytest.mark.parametrize("name", STAGES)
def test_a_backbone_has_as_many_stages_as_counted(
    without_tensors: Callable[[str], Backbone], name: str
) -> None:
    assert len(without_tensors(name).stages) == count_stages(name) == STAGES[name]


@pytest.mark.parametrize("name", STAGES)
def test_three_maps_have_the_announced_channels_and_strides(
    without_tensors: Callable[[str], Backbone], name: str
) -> None:
    """Anchors are laid out by the maps' sizes: with other strides they would be misplaced."""
    backbone = without_tensors(name)
    with torch.device("meta"):
        maps = backbone.module.eval()(torch.empty(1, 3, 320, 320))
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    short = (
        3 if name == "inception_v3" else 0
    )  # its convolutions are not padded: detectors resize them
    for (height, width), side in zip((m.shape[2:] for m in maps), (40, 20, 10), strict=True):
        assert height == width and side - short <= height <= side


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_small_patch14_dinov2"])
def test_a_vision_transformer_is_refused_with_the_reason(name: str) -> None:
    error = error_of(name)
    assert error.startswith(f"model.backbone: {name} has feature maps at strides ")
    assert "needs 8, 16 and 32" in error
    with pytest.raises(InputError):
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
def test_a_canvas_that_a_backbone_cannot_run_on_is_refused_with_the_reason(
    name: str, size: int, message: str
) -> None:
    (error,) = size_errors(name, size)
    assert error.endswith(message)


def test_tested_backbones_run_on_the_usual_canvases() -> None:
    assert [
        name for name in TESTED_BACKBONES if size_errors(name, 96) or size_errors(name, 320)
    ] == []


def test_a_backbone_without_named_levels_is_refused_with_the_reason() -> None:
    assert error_of("hiera_tiny_224").endswith(
        "timm does not say where the levels of hiera_tiny_224 end"
    )


@pytest.mark.parametrize(("wrong", "right"), [("resnt50", "resnet50"), ("vgg_16", "vgg16")])
def test_the_error_for_an_unknown_name_names_the_nearest(wrong: str, right: str) -> None:
    assert error_of(wrong) == f"model.backbone: timm has no {wrong!r}; did you mean {right}?"


@pytest.mark.parametrize("name", ["", "zzzzzzzzzzzz", "/etc/passwd"])
def test_the_error_for_a_name_near_no_other_says_where_to_look(name: str) -> None:
    assert error_of(name).endswith("; `unfreeze models` lists those tested, timm.list_models() all")


def test_an_unknown_tag_of_a_known_model_is_named() -> None:
    error = error_of("resnet50.nonsense")
    assert "nonsense" in error
    assert "strides" not in error


def test_the_packaged_weights_are_the_offline_default() -> None:
    backbone = build(LITE0, "imagenet")
    assert backbone.normalization.mean == (127 / 255,) * 3
    assert backbone.normalization.std == (128 / 255,) * 3
    state = backbone.module.state_dict()
    means = [tensor for name, tensor in state.items() if name.endswith("running_mean")]
    assert means and all(mean.abs().sum() > 0 for mean in means)  # a new BatchNorm has zeros


def test_new_weights_follow_from_the_seed() -> None:
    torch.manual_seed(0)
    one = build(SMALL, "none").module.state_dict()
    torch.manual_seed(0)
    same = build(SMALL, "none").module.state_dict()
    other = build(SMALL, "none").module.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("spec", ["{", "[]", "{}", '{"pixels": {"mean": 1, "std": 1}}'])
def test_an_export_with_a_damaged_spec_is_refused(tmp_path: Path, spec: str) -> None:
    state = {
        f"backbone.{n}": t.contiguous() for n, t in build(SMALL, "none").module.state_dict().items()
    }
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "spec.json").write_text(spec)
    assert error_of(SMALL, str(tmp_path)).startswith(f"model.weights: {tmp_path / 'spec.json'} is ")
