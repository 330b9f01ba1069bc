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

from ..config import BadInput
from ..machine_errors import is_out_of_memory

WEIGHTS, SPEC = "model.safetensors", "spec.json"
"""Files of an export."""
HUB_FILES = (WEIGHTS, "pytorch_model.bin")
"""What a repository of the hub holds, the first that there is."""
DIGEST = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
"""Where the names of PyTorch's files hold the beginning of their SHA-256."""
BLOB = re.compile("[0-9a-f]{64}")
"""The name of a file in the hub's cache."""
SECONDS = 10.0
"""To wait for the hub to say that it has a file."""
SHOWN = 3
"""Names of tensors that an error shows."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the file that they are from."""

    state: dict[str, Tensor]
    digest: str
    """SHA-256 of the file."""


def read(place: Path, legal: str) -> Weights:
    """Read a .pth or .safetensors file, or an export's folder, under the names it has there.

    `legal` is what an error says that `model.weights` may be. Raises BadInput when the file is
    missing, torn, of anything but tensors, of numbers that are not finite, or other than the digest
    in its name says.
    """
    file = place / WEIGHTS if place.is_dir() else place
    if not file.is_file():
        raise BadInput([f"model.weights: no file {file} (legal: {legal})"])
    if file != place:
        require_whole(file)
    digest = _digest(file)
    state = _tensors(file)
    _require_finite(state, file)
    return Weights(state, digest)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_whole(file: Path) -> None:
    """Raise BadInput when an export's file is not the one that its spec.json has the SHA-256 of."""
    try:
        wanted = json.loads((file.parent / SPEC).read_text())["sha256"][file.name]
    except (OSError, ValueError, TypeError, KeyError):
        return  # exports of the first version say nothing of it
    if sha256(file) != wanted:
        raise BadInput([f"{file} is damaged: its SHA-256 is not the one in its {SPEC}"])


def _digest(file: Path) -> str:
    digest = sha256(file)
    blob = file.resolve()  # the hub's cache names it by its SHA-256, and links to it
    if blob != file and BLOB.fullmatch(blob.name) and blob.name != digest:
        raise BadInput(
            [
                f"model.weights: {file} is damaged: its SHA-256 is not the one it was fetched "
                f"with; delete {blob} and fetch it again"
            ]
        )
    named = DIGEST.search(file.name)
    # without a letter in it, it may be a date
    if named and not named[1].isdigit() and not digest.startswith(named[1]):
        raise BadInput(
            [
                f"model.weights: {file} is not what its name says: its SHA-256 begins with "
                f"{digest[:8]}, not {named[1][:8]}; delete it and fetch it again, or rename it "
                "if that part of its name is no digest"
            ]
        )
    return digest


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torn zip, foreign pickle, wrong header: torch has a type for each
        if is_out_of_memory(error):
            raise
        raise BadInput(
            [
                f"model.weights: {file} is no readable file of plain tensors; fetch it again, or "
                "save only its state_dict"
            ]
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise BadInput(
            [f"model.weights: {file} holds no state_dict of tensors; save only the model's own"]
        )
    return state


def _require_finite(state: dict[str, Tensor], file: Path) -> None:
    spoiled = [
        name for name, t in state.items() if t.is_floating_point() and not t.isfinite().all()
    ]
    if spoiled:
        more = f" and {len(spoiled) - 1} more of its tensors" if len(spoiled) > 1 else ""
        raise BadInput(
            [
                f"model.weights: {file} holds NaN or infinite numbers in {spoiled[0]}{more}, as of "
                "a training that diverged; give an earlier checkpoint"
            ]
        )


def fetch(url: str) -> Path:
    """A file of PyTorch's servers, from torch's cache or into it, whole or not at all.

    Raises BadInput saying where to put the file when it cannot be fetched.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    named = DIGEST.search(file.name)
    try:
        torch.hub.download_url_to_file(url, str(file), named[1] if named else None, progress=False)
    except Exception as error:  # urllib, sockets and disks raise many kinds for the one thing
        if is_out_of_memory(error):
            raise
        raise BadInput(
            [
                f"model.weights: {url} cannot be fetched ({_first_line(error)}). Bring the file to "
                f"{file}, or give its path as model.weights"
            ]
        ) from error
    return file


def fetch_timm(name: str) -> Weights:
    """The pretrained classifier of timm's model of that name, through timm and its caches.

    Raises BadInput saying how to bring the file when it cannot be fetched.
    """
    config: Any = timm.get_pretrained_cfg(name)
    file = _cached(name)
    digest = _digest(file) if file else ""
    try:
        if config is not None and config.hf_hub_id and not file:
            # a question that fails at once, where a download would be tried for a minute
            repository, _, revision = config.hf_hub_id.partition("@")
            HfApi().model_info(repository, revision=revision or None, timeout=SECONDS)
        state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm and its hub raise many kinds for the one thing: no file
        if is_out_of_memory(error):
            raise
        raise BadInput(
            [
                f"model.weights: the weights of {name} cannot be fetched ({_first_line(error)}). "
                f"Bring the file{_home(name)} and give its path as model.weights, or use "
                "weights: none"
            ]
        ) from error
    if not file and (file := _cached(name)):
        digest = _digest(file)
    return Weights(state, digest)


def _home(name: str) -> str:
    """Where timm's file of a model can be had."""
    config: Any = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id:
        return f" (https://huggingface.co/{config.hf_hub_id}, {WEIGHTS})"
    return f" ({config.url})" if config is not None and config.url else ""


def _cached(name: str) -> Path | None:
    """The file in the hub's or torch's cache that timm reads."""
    config: Any = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    repository, _, revision = (config.hf_hub_id or "").partition("@")
    for own in (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES:
        found = repository and try_to_load_from_cache(repository, own, revision=revision or None)
        if isinstance(found, str) and found:
            return Path(found)
    if repository:
        return None  # then timm looks nowhere else
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url or "none").name
    return file if file.is_file() else None


def _first_line(error: BaseException) -> str:
    """Of what was wrong at first, for libraries wrap it in words of their own."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    text = str(error).splitlines()[0][:120] if str(error) else ""
    return f"{type(error).__name__}: {text}"


def misfit(
    place: str, model: str, missing: Iterable[str], strangers: Iterable[str], give: str
) -> BadInput:
    """What is wrong where a file's tensors are not a model's: which, and what to give instead."""
    parts = []
    for names, what in ((missing, "it lacks or misshapes"), (strangers, "it has besides")):
        listed = sorted(names)
        if listed:
            more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
            parts.append(f"{what} {', '.join(listed[:SHOWN])}{more}")
    return BadInput(
        [f"model.weights: {place} does not fit {model}: {'; '.join(parts)}; give {give}"]
    )
