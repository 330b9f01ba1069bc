"""Checkpoints: files of plain tensors, written atomically.

A checkpoint holds only what may differ from the pretrained weights: neck, head and the stages that
were ever opened. The rest is rebuilt from the config, and must be what it was. A file ends with the
SHA-256 of its content, since `torch.load` does not notice flipped bits.
"""

import contextlib
import hashlib
import io
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ..config import InputError
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


def load_trained_state(detector: Detector, checkpoint: Checkpoint) -> None:
    """Load the trained tensors of a checkpoint into a detector with its pretrained weights.

    Raises:
        RuntimeError: The tensors are of another architecture.
        InputError: The trial began with another backbone. Its trained tensors on this one would
            be a detector that was never trained.
    """
    pretrained = pretrained_digest(detector)
    missing, unexpected = detector.load_state_dict(checkpoint["model"], strict=False)
    mismatched = [*unexpected, *(name for name in missing if not name.startswith("backbone."))]
    if mismatched:
        raise RuntimeError(f"the checkpoint is of another architecture: {mismatched[0]}")
    # checkpoints of earlier versions lack the digest
    if checkpoint.get("pretrained", pretrained) != pretrained:
        raise InputError(
            [
                "model.weights: what is there now is not what this trial began with; bring the "
                "file back, or begin anew"
            ]
        )


def pretrained_digest(detector: Detector) -> str:
    """SHA-256 of what a checkpoint leaves out: the backbone before training, its normalization."""
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
    """Write a checkpoint to a file, atomically."""
    with atomic_writer(file) as stream:
        hashing = _HashingWriter(stream)
        before = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)  # the SHA-256 finds more damage
        try:
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]  # write and flush suffice
        except RuntimeError as error:
            raise hashing.failed or error from error  # torch wraps the OSError of a full disk
        finally:
            torch.serialization.set_crc32_options(before)
        stream.write(hashing.total.digest())
    _intact[file] = _stamp(file)


class _HashingWriter:
    """A file that computes the SHA-256 of what is written to it.

    To collect the content in memory first would take twice as long.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.total = hashlib.sha256()
        self.failed: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write bytes, and keep the OSError when that fails."""
        self.total.update(content)
        try:
            return self.stream.write(content)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self.stream.flush()


def write_atomically(content: bytes, file: Path) -> None:
    """Replace a file's content atomically: a reader sees all of the old or of the new bytes."""
    with atomic_writer(file) as stream:
        stream.write(content)


@contextlib.contextmanager
def atomic_writer(file: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `file` at the end, unless an exception ends the block."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{platform.node()}.{os.getpid()}")
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
    """Write `last.pt`, and keep the one before as `previous.pt`."""
    if _is_intact(folder / LAST):  # a damaged one must not replace the intact one before it
        (folder / LAST).replace(folder / PREVIOUS)
    save(checkpoint, folder / LAST)


_intact: dict[Path, tuple[int, ...]] = {}
"""Stamps of the files that this process wrote. A file with the same stamp is not read to check it:
that would take as long as to write it."""


def _stamp(file: Path) -> tuple[int, ...]:
    """Inode, size and time of change of a file."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_intact(file: Path) -> bool:
    with contextlib.suppress(OSError, DamagedFileError):
        if _intact.get(file) != _stamp(file):
            load(file)
        return True
    return False


class DamagedFileError(Exception):
    """A checkpoint's content does not match its SHA-256."""


def load(file: Path) -> Checkpoint:
    """Read a checkpoint. Raises OSError if the file is missing, DamagedFileError if damaged."""
    content = memoryview(file.read_bytes())
    payload, digest = content[:-32], content[-32:]
    if hashlib.sha256(payload).digest() != digest:
        raise DamagedFileError(f"{file} is damaged: its content does not match its digest")
    checkpoint: Checkpoint = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return checkpoint


def load_last(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint of a trial; None where there is none."""
    for name in (LAST, PREVIOUS):
        with contextlib.suppress(OSError, DamagedFileError):
            return load(folder / name)
    return None


def load_reports(folder: Path) -> list[dict[str, Any]]:
    """The epoch reports in a trial's checkpoints, in order, as plain values.

    `best.pt` is written before `last.pt`. Where a trial ended between them, it is an epoch ahead.
    """
    last = load_last(folder)
    reports: list[dict[str, Any]] = last["reports"] if last else []
    with contextlib.suppress(OSError, DamagedFileError):
        best = load(folder / BEST)["report"]
        if best["epoch"] == len(reports) + 1:
            return [*reports, best]
    return reports
