"""Files of pretrained weights: fetched into the usual caches, checked, read as plain tensors."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor

from ..config import InputError
from ..machine_errors import is_out_of_memory

WEIGHTS_FILE, SPEC_FILE = "model.safetensors", "spec.json"
"""Files of an export."""
HUB_FILES = (WEIGHTS_FILE, "pytorch_model.bin")
"""Weights in a repository of the Hugging Face hub; the first that exists is taken."""
DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
"""Where PyTorch's file names hold the beginning of their SHA-256, as in resnet18-f37072fd.pth."""
BLOB_NAME = re.compile("[0-9a-f]{64}")
"""Name of a file in the hub's cache: its SHA-256."""
HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub to say that it has a file."""
MAX_NAMES = 3
"""Tensors that an error names."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the file that they are from."""

    state: dict[str, Tensor]
    digest: str
    """SHA-256 of the file."""


def read(path: Path, legal: str) -> Weights:
    """Read a .pth or .safetensors file, or an export's folder, under the names in the file.

    Args:
        path: The file, or the folder.
        legal: What `model.weights` may be, for the error about a missing file.

    Raises:
        InputError: The file is missing, damaged, not what the digest in its name says, holds
            anything but tensors, or numbers that are not finite.
    """
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError([f"model.weights: no file {file} (legal: {legal})"])
    if file != path:
        check_export_digest(file)
    digest = _checked_digest(file)
    state = _read_tensors(file)
    _check_finite(state, file)
    return Weights(state, digest)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_export_digest(file: Path) -> None:
    """Raise InputError when a file of an export does not have the SHA-256 in its spec.json."""
    try:
        expected = json.loads((file.parent / SPEC_FILE).read_text())["sha256"][file.name]
    except (OSError, ValueError, TypeError, KeyError):
        return  # exports of the first version have no digest in their spec
    if sha256(file) != expected:
        raise InputError([f"{file} is damaged: its SHA-256 is not the one in its {SPEC_FILE}"])


def _checked_digest(file: Path) -> str:
    """The SHA-256 of a file. Raises InputError when the file's name holds another one."""
    digest = sha256(file)
    blob = file.resolve()  # the hub's cache names it by its SHA-256, and links to it
    if blob != file and BLOB_NAME.fullmatch(blob.name) and blob.name != digest:
        raise InputError(
            [
                f"model.weights: {file} is damaged: its SHA-256 is not the one it was fetched "
                f"with; delete {blob} and fetch it again"
            ]
        )
    named = DIGEST_IN_NAME.search(file.name)
    # digits alone may be a date
    if named and not named[1].isdigit() and not digest.startswith(named[1]):
        raise InputError(
            [
                f"model.weights: {file} is not what its name says: its SHA-256 begins with "
                f"{digest[:8]}, not {named[1][:8]}; delete it and fetch it again, or rename it "
                "if that part of its name is no digest"
            ]
        )
    return digest


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """The state_dict in a file or training checkpoint. Raises InputError where there is none."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage raises many types of errors
        if is_out_of_memory(error):
            raise
        raise InputError(
            [
                f"model.weights: {file} is no readable file of plain tensors; fetch it again, or "
                "save only its state_dict"
            ]
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(
            [f"model.weights: {file} holds no state_dict of tensors; save the model's state_dict"]
        )
    return state


def _check_finite(state: dict[str, Tensor], file: Path) -> None:
    bad = [name for name, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 1} more of its tensors" if len(bad) > 1 else ""
        raise InputError(
            [
                f"model.weights: {file} holds NaN or infinite numbers in {bad[0]}{more}, as after "
                "a training that diverged; give an earlier checkpoint"
            ]
        )


def fetch(url: str) -> Path:
    """A file of PyTorch's servers in torch's cache, downloaded at first use, completely or not.

    Raises InputError saying where to put the file when it cannot be fetched.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    named = DIGEST_IN_NAME.search(file.name)
    try:
        torch.hub.download_url_to_file(url, str(file), named[1] if named else None, progress=False)
    except Exception as error:  # urllib, sockets and disks raise many types of errors
        if is_out_of_memory(error):
            raise
        raise InputError(
            [
                f"model.weights: {url} cannot be fetched ({_root_cause(error)}). Bring the file to "
                f"{file}, or give its path as model.weights"
            ]
        ) from error
    return file


def fetch_timm(name: str) -> Weights:
    """The pretrained classifier of timm's model of that name, through timm and its caches.

    Raises InputError saying how to bring the file when it cannot be fetched.
    """
    config: Any = timm.get_pretrained_cfg(name)
    file = _cached_file(name)
    digest = _checked_digest(file) if file else ""
    try:
        if config is not None and config.hf_hub_id and not file:
            # fails at once without a network; a download would be retried for a minute
            repository, _, revision = config.hf_hub_id.partition("@")
            HfApi().model_info(repository, revision=revision or None, timeout=HUB_TIMEOUT)
        state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm and its hub raise many types when they get no file
        if is_out_of_memory(error):
            raise
        raise InputError(
            [
                f"model.weights: the weights of {name} cannot be fetched ({_root_cause(error)}). "
                f"Bring the file{_source(name)} and give its path as model.weights, or use "
                "weights: none"
            ]
        ) from error
    if not file and (file := _cached_file(name)):
        digest = _checked_digest(file)
    return Weights(state, digest)


def _source(name: str) -> str:
    """Where a user gets timm's file of a model, in brackets; empty when timm does not say."""
    config: Any = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id:
        return f" (https://huggingface.co/{config.hf_hub_id}, {WEIGHTS_FILE})"
    return f" ({config.url})" if config is not None and config.url else ""


def _cached_file(name: str) -> Path | None:
    """The file in the hub's or torch's cache that timm reads."""
    config: Any = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    repository, _, revision = (config.hf_hub_id or "").partition("@")
    for file_name in (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES:
        cached = repository and try_to_load_from_cache(
            repository, file_name, revision=revision or None
        )
        if isinstance(cached, str) and cached:
            return Path(cached)
    if repository:
        return None  # timm does not look in torch's cache then
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url or "none").name
    return file if file.is_file() else None


def _root_cause(error: BaseException) -> str:
    """Type and first line of the error that other errors wrap."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    text = str(error).splitlines()[0][:120] if str(error) else ""
    return f"{type(error).__name__}: {text}"


def mismatch_error(
    path: str, model: str, missing_keys: Iterable[str], unexpected_keys: Iterable[str], remedy: str
) -> InputError:
    """The error for a file whose tensors are not a model's.

    Args:
        path: The file or folder.
        model: Name of the model that it does not fit.
        missing_keys: Tensors that it lacks, or has in another shape.
        unexpected_keys: Tensors that the model lacks.
        remedy: What to give instead.
    """
    parts = []
    for keys, text in (
        (missing_keys, "it lacks, or has in another shape,"),
        (unexpected_keys, "the model has no"),
    ):
        names = sorted(keys)
        if names:
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            parts.append(f"{text} {', '.join(names[:MAX_NAMES])}{more}")
    return InputError(
        [f"model.weights: {path} does not fit {model}: {'; '.join(parts)}; give {remedy}"]
    )
