"""Checkpoints: files of plain tensors, written whole or not at all.

A checkpoint holds only what may differ from the pretrained weights: neck, head and the stages that
were ever opened. The rest is rebuilt from the config, and must be what it was. A file ends with the
SHA-256 of what comes before: `torch.load` itself reads a file with flipped bits without a word.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ..config import BadInput
from .detectors import Detector
from .freezing import opened_names

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"

Checkpoint = dict[str, Any]


def trained_state(detector: Detector, depth: int) -> dict[str, Tensor]:
    """Tensors of neck, head and the top `depth` stages, on the CPU, under the detector's names."""
    opened = {f"backbone.{name}" for name in opened_names(detector.stages, depth)}
    return {
        name: tensor.detach().cpu()
        for name, tensor in detector.state_dict().items()
        if name in opened or not name.startswith("backbone.")
    }


def load_trained_state(detector: Detector, kept: Checkpoint) -> None:
    """Put the trained tensors of a checkpoint into a detector that holds its pretrained weights.

    Raises RuntimeError when they are of another architecture, and BadInput when the trial began
    with another backbone: with this one they would be a detector that was never trained.
    """
    pretrained = pretrained_digest(detector)
    missing, unexpected = detector.load_state_dict(kept["model"], strict=False)
    strangers = [*unexpected, *(name for name in missing if not name.startswith("backbone."))]
    if strangers:
        raise RuntimeError(f"the checkpoint is of another architecture: {strangers[0]}")
    if kept.get("pretrained", pretrained) != pretrained:  # earlier versions say nothing of it
        raise BadInput(
            [
                "model.weights: what is there now is not what this trial began with; bring the "
                "file back, or begin anew"
            ]
        )


def pretrained_digest(detector: Detector) -> str:
    """Identity of what a checkpoint may leave out: the backbone before training, and its pixels."""
    pixels = f"{detector.mean.tolist()} {detector.std.tolist()}"
    return hashlib.sha256(f"{pixels} {tensors_digest(detector.backbone)}".encode()).hexdigest()


def tensors_digest(module: nn.Module) -> str:
    """SHA-256 of the names and bits of all parameters and buffers."""
    total = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def save(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint."""
    with writing_whole(file) as stream:
        hashing = _Hashing(stream)
        before = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)  # the digest says more
        try:
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]  # it needs no more of a file
        except RuntimeError as error:
            raise hashing.failed or error from error  # torch tells of a full disk in its own words
        finally:
            torch.serialization.set_crc32_options(before)
        stream.write(hashing.total.digest())
    _written[file] = _mark(file)


class _Hashing:
    """A file whose digest is known when it is written: to hold all of it in memory first takes as
    long again."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.total = hashlib.sha256()
        self.failed: OSError | None = None

    def write(self, content: bytes) -> int:
        self.total.update(content)
        try:
            return self.stream.write(content)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def write_whole(content: bytes, file: Path) -> None:
    """Put bytes into a file so that a reader sees all of them or the file as it was."""
    with writing_whole(file) as stream:
        stream.write(content)


@contextlib.contextmanager
def writing_whole(file: Path) -> Iterator[BinaryIO]:
    """What is written takes the place of a file at the end; where that fails, nothing does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def save_last(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `last.pt`, keeping the one before as `previous.pt`."""
    if _is_whole(folder / LAST):  # a damaged one must not take the place of the good one before it
        (folder / LAST).replace(folder / PREVIOUS)
    save(checkpoint, folder / LAST)


_written: dict[Path, tuple[int, ...]] = {}
"""How the files look that this process wrote: what still looks so is taken to be whole, for to read
it takes as long as to write it."""


def _mark(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_whole(file: Path) -> bool:
    with contextlib.suppress(OSError, Damaged):
        if _written.get(file) != _mark(file):
            load(file)
        return True
    return False


class Damaged(Exception):
    """A checkpoint file is not what was written."""


def load(file: Path) -> Checkpoint:
    """Read a checkpoint of plain tensors. Raises OSError where it is missing, or Damaged."""
    content = memoryview(file.read_bytes())
    payload, digest = content[:-32], content[-32:]
    if hashlib.sha256(payload).digest() != digest:
        raise Damaged(f"{file} is damaged: its content does not match its digest")
    checkpoint: Checkpoint = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return checkpoint


def load_last(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a trial, or None where it has none."""
    for name in (LAST, PREVIOUS):
        with contextlib.suppress(OSError, Damaged):
            return load(folder / name)
    return None


def load_reports(folder: Path) -> list[dict[str, Any]]:
    """What a trial's checkpoints say of its epochs, in order, as plain values.

    `best.pt` is written first: where a trial ended between two files, it is an epoch ahead.
    """
    last = load_last(folder)
    reports: list[dict[str, Any]] = last["reports"] if last else []
    with contextlib.suppress(OSError, Damaged):
        best = load(folder / BEST)["report"]
        if best["epoch"] == len(reports) + 1:
            return [*reports, best]
    return reports
