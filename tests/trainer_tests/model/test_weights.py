"""Weights: through timm's cache, in torchvision's naming, and files that are not what they say."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.config import BadInput
from trainer.model.backbones import build
from trainer.model.weights import read

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
    """With norms on whose statistics their eps shows."""
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
    own = build(name, str(file))
    assert own.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    kept: list[Tensor] = []
    theirs.get_submodule(LAST[name]).register_forward_hook(lambda *a: kept.append(a[-1]))
    with torch.no_grad():
        theirs(pixels)
        found = own.module.eval()(pixels)[-1]
    scale = float(kept[0].abs().max())
    torch.testing.assert_close(found, kept[0], rtol=1e-3, atol=1e-3 * scale)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts random weights of one of timm's models into the hub's cache, which is the test's own:
    a link to a file that has its SHA-256 for a name."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def make(name: str) -> Path:
        config: Any = timm.get_pretrained_cfg(name)
        repository = tmp_path / ("models--" + config.hf_hub_id.replace("/", "--"))
        commit = "0" * 40
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "blobs").mkdir()
        torch.manual_seed(3)
        save_file(timm.create_model(name).state_dict(), repository / "blobs" / "new")
        digest = hashlib.sha256((repository / "blobs" / "new").read_bytes()).hexdigest()
        blob = (repository / "blobs" / "new").rename(repository / "blobs" / digest)
        file = repository / "snapshots" / commit / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.symlink_to(blob)
        return file

    return make


def test_weights_by_name_come_from_timms_cache_with_their_digest(
    hub: Callable[[str], Path],
) -> None:
    file = hub("test_resnet")
    state = load_file(file)
    backbone = build("test_resnet", "imagenet")
    assert all(torch.equal(t, state[n]) for n, t in backbone.module.state_dict().items())
    assert backbone.digest == hashlib.sha256(file.read_bytes()).hexdigest() == file.resolve().name


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_file_in_timms_cache_is_told_with_its_place(
    hub: Callable[[str], Path], damage: str
) -> None:
    blob = hub("test_resnet").resolve()
    content = blob.read_bytes()
    blob.write_bytes(
        content[:1000] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1])
    )
    with pytest.raises(BadInput, match=rf"model.safetensors is damaged: .* delete {blob} and"):
        build("test_resnet", "imagenet")


def test_the_packaged_weights_have_the_digest_that_their_name_says() -> None:
    assert build("tf_efficientnet_lite0", "imagenet").digest.startswith("57934424")
    assert build("tf_efficientnet_lite0", "none").digest == ""


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("model-{digest}.pth", True),
        ("model-0a1b2c3d.pth", False),
        ("model-20261125.pth", True),  # a date
        ("model-0a1b2c3.pth", True),  # a commit
        ("model.pth", True),
    ],
)
def test_a_file_is_what_the_digest_in_its_name_says(tmp_path: Path, name: str, sound: bool) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a")
    digest = hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    file = (tmp_path / "a").rename(tmp_path / name.format(digest=digest[:8]))
    if sound:
        assert read(file, "").digest == digest
    else:
        with pytest.raises(BadInput, match=f"begins with {digest[:8]}, not 0a1b2c3d; delete it"):
            read(file, "")


def test_a_misfit_names_the_tensors_and_what_to_give(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(BadInput) as raised:
        build("test_resnet", str(tmp_path / "a.pth"))
    (error,) = raised.value.errors
    assert "it lacks or misshapes " in error and " more; it has besides conv1.weight; " in error
    assert error.endswith("or of torchvision's model of that architecture")


@pytest.mark.parametrize(
    ("name", "deeper"),
    [("resnet18", "resnet34"), ("resnet50", "resnet101"), ("convnext_tiny", "convnext_small")],
)
def test_a_deeper_models_file_is_refused_with_what_it_has_besides(
    tmp_path: Path, name: str, deeper: str
) -> None:
    torch.save(timm.create_model(deeper).state_dict(), tmp_path / "a.pth")
    with pytest.raises(BadInput, match=rf"does not fit {name}: it has besides \w+\.\S+, .* more; "):
        build(name, str(tmp_path / "a.pth"))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_tensors_of_a_training_checkpoint_are_found_in_it(tmp_path: Path, key: str) -> None:
    torch.save({key: {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.pth")
    assert set(read(tmp_path / "a.pth", "").state) == {"a"}


def test_a_checkpoint_without_a_state_dict_is_told_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"net": {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(BadInput, match="holds no state_dict of tensors; save only"):
        read(tmp_path / "a.pth", "")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["a.pth", "a.safetensors", "export/model.safetensors"])
def test_a_number_that_is_not_finite_is_told_with_its_file_and_tensor(
    tmp_path: Path, place: str, number: float
) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    sound = {"a": torch.ones(2), "count": torch.tensor(3)}
    write = torch.save if file.suffix == ".pth" else save_file
    given = file.parent if file.parent != tmp_path else file
    write(sound, file)
    assert set(read(given, "").state) == {"a", "count"}
    spoiled = {"b.weight": torch.tensor([1.0, number]), "c": torch.tensor(number).half()}
    write(sound | spoiled, file)
    with pytest.raises(BadInput) as raised:
        read(given, "")
    (error,) = raised.value.errors
    assert error.startswith(
        f"model.weights: {file} holds NaN or infinite numbers in b.weight and 1"
    )


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")], ids=repr
)
def test_a_lack_of_memory_is_not_taken_for_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        read(tmp_path / "a.pth", "")
    monkeypatch.setattr("trainer.model.weights.HfApi.model_info", fail)
    with pytest.raises(type(error)):
        build("resnet10t", "imagenet")


def test_what_was_wrong_at_first_is_told_of_a_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        try:
            raise OSError("Name or service not known")
        except OSError as error:
            raise RuntimeError("an error happened while trying to locate the file") from error

    monkeypatch.setattr("trainer.model.weights.HfApi.model_info", unreachable)
    with pytest.raises(BadInput, match=r"cannot be fetched \(OSError: Name or service not known\)"):
        build("resnet10t", "imagenet")
