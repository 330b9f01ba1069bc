"""Weights of a classifier fill the feature extractor cut from it, or are refused."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.config import InputError
from trainer.model.backbone_weights import load_weights
from trainer.model.backbones import build

LITE0, SMALL = "tf_efficientnet_lite0", "test_resnet"


def error_of(name: str, weights: str = "none") -> str:
    with pytest.raises(InputError) as raised:
        build(name, weights)
    (error,) = raised.value.errors
    return error


def classifier(name: str) -> dict[str, Tensor]:
    """Tensors of timm's classifier, each of another value, without VGG's large last layers."""
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
def test_a_classifiers_file_fills_the_backbone(tmp_path: Path, name: str, form: str) -> None:
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
    for key, tensor in loaded.items():
        assert torch.equal(tensor, renamed[key.replace(".", "_")]), key


def test_an_export_gives_weights_and_normalization(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = build(SMALL, "none").module.state_dict()
    named = {f"backbone.{name}": tensor.contiguous() for name, tensor in state.items()}
    save_file({**named, "head.bias": torch.ones(2)}, tmp_path / "model.safetensors")
    pixels = {"mean": [0.25, 0.5, 0.75], "std": [0.5, 0.25, 0.125]}
    (tmp_path / "spec.json").write_text(json.dumps({"pixels": pixels}))
    backbone = build(SMALL, str(tmp_path))
    loaded = backbone.module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    assert (backbone.normalization.mean, backbone.normalization.std) == (
        (0.25, 0.5, 0.75),
        (0.5, 0.25, 0.125),
    )


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


TORCHVISION = {
    "resnet18": "resnet18",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "convnext_tiny": "convnext_tiny",
    "inception_v3": "inception_v3",
}


LAST = {
    "resnet18": "layer4",
    "mobilenetv3_large_100": "features.16",
    "convnext_tiny": "features.7",
    "inception_v3": "Mixed_7c",
}


def torchvision_model(name: str) -> nn.Module:
    """A model with variances so small that the eps of its norms matters."""
    torch.manual_seed(0)
    more = {"init_weights": False} if name == "inception_v3" else {}
    model: nn.Module = getattr(torchvision.models, TORCHVISION[name])(**more)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.005, 0.01)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.05, 0.1)
    return model.eval()


@pytest.mark.parametrize("form", ["pth", "safetensors"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_a_file_in_torchvisions_naming_gives_torchvisions_features(
    tmp_path: Path, name: str, form: str
) -> None:
    theirs = torchvision_model(name)
    file = tmp_path / f"weights.{form}"
    if form == "pth":
        torch.save(theirs.state_dict(), file)
    else:  # and as files were that know nothing of how many batches a norm has seen
        state = theirs.state_dict()
        save_file({n: t for n, t in state.items() if not n.endswith("_tracked")}, file)
    backbone = build(name, str(file))
    assert backbone.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    expected: list[Tensor] = []
    theirs.get_submodule(LAST[name]).register_forward_hook(lambda *a: expected.append(a[-1]))
    with torch.no_grad():
        theirs(pixels)
        features = backbone.module.eval()(pixels)[-1]
    scale = float(expected[0].abs().max())
    torch.testing.assert_close(features, expected[0], rtol=1e-3, atol=1e-3 * scale)


def test_the_packaged_weights_have_the_digest_in_their_name() -> None:
    assert build("tf_efficientnet_lite0", "imagenet").digest.startswith("57934424")
    assert build("tf_efficientnet_lite0", "none").digest == ""


def test_a_mismatch_names_the_tensors_and_what_to_give(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(InputError) as raised:
        build("test_resnet", str(tmp_path / "a.pth"))
    (error,) = raised.value.errors
    assert (
        "it lacks, or has in another shape, " in error
        and " more; the model has no conv1.weight; " in error
    )
    assert error.endswith("or of torchvision's model of that architecture")


@pytest.mark.parametrize(
    ("name", "deeper"),
    [("resnet18", "resnet34"), ("resnet50", "resnet101"), ("convnext_tiny", "convnext_small")],
)
def test_a_deeper_models_file_is_refused_with_its_unexpected_tensors(
    tmp_path: Path, name: str, deeper: str
) -> None:
    torch.save(timm.create_model(deeper).state_dict(), tmp_path / "a.pth")
    with pytest.raises(
        InputError, match=rf"does not fit {name}: the model has no \w+\.\S+, .* more; "
    ):
        build(name, str(tmp_path / "a.pth"))
