"""Files of weights: from timm's cache, checked against their digests, read as plain tensors."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from trainer.config import InputError
from trainer.model.backbones import build
from trainer.model.weights import read

SMALL = "test_resnet"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that puts random weights of one of timm's models into a temporary hub cache.

    The file is a link to one that is named after its SHA-256.
    """
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
        file: Path = repository / "snapshots" / commit / "model.safetensors"
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
def test_a_damaged_file_in_timms_cache_is_refused_with_its_path(
    hub: Callable[[str], Path], damage: str
) -> None:
    blob = hub("test_resnet").resolve()
    content = blob.read_bytes()
    blob.write_bytes(
        content[:1000] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1])
    )
    with pytest.raises(InputError, match=rf"model.safetensors is damaged: .* delete {blob} and"):
        build("test_resnet", "imagenet")


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
def test_a_file_is_checked_against_the_digest_in_its_name(
    tmp_path: Path, name: str, sound: bool
) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a")
    digest = hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    file = (tmp_path / "a").rename(tmp_path / name.format(digest=digest[:8]))
    if sound:
        assert read(file, "").digest == digest
    else:
        with pytest.raises(InputError, match=f"begins with {digest[:8]}, not 0a1b2c3d; delete it"):
            read(file, "")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_tensors_are_read_out_of_a_training_checkpoint(tmp_path: Path, key: str) -> None:
    torch.save({key: {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.pth")
    assert set(read(tmp_path / "a.pth", "").state) == {"a"}


def test_a_checkpoint_without_a_state_dict_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"net": {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds no state_dict of tensors; save the model"):
        read(tmp_path / "a.pth", "")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["a.pth", "a.safetensors", "export/model.safetensors"])
def test_a_number_that_is_not_finite_is_refused_with_its_file_and_tensor(
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
    with pytest.raises(InputError) as raised:
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


def test_the_root_cause_of_a_failed_fetch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        try:
            raise OSError("Name or service not known")
        except OSError as error:
            raise RuntimeError("an error happened while trying to locate the file") from error

    monkeypatch.setattr("trainer.model.weights.HfApi.model_info", unreachable)
    with pytest.raises(
        InputError, match=r"cannot be fetched \(OSError: Name or service not known\)"
    ):
        build("resnet10t", "imagenet")


def error_of(name: str, weights: str = "none") -> str:
    with pytest.raises(InputError) as raised:
        build(name, weights)
    (error,) = raised.value.errors
    return error


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


def test_the_error_for_a_missing_file_says_what_is_legal(tmp_path: Path) -> None:
    error = error_of(SMALL, str(tmp_path / "gone.pth"))
    assert error == (
        f"model.weights: no file {tmp_path / 'gone.pth'} "
        "(legal: imagenet, none, a file, or an export)"
    )


def test_the_error_for_a_failed_fetch_says_what_to_do() -> None:
    error = error_of("resnet10t", "imagenet")  # conftest takes the hub offline
    assert error.startswith("model.weights: the weights of resnet10t cannot be fetched")
    assert "give its path as model.weights" in error
