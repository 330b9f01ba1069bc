"""Outputs of frozen stages: computed once a machine, kept in files that all trials map.

Below the open stages everything is as it was pretrained, since depth never falls, and the canvas is
fixed: what comes out there depends on the picture, and on whether it is mirrored, alone. Each
picture is run by itself and its outputs are rounded to the training precision, so that they are the
same bits whoever computes them, and whether or not a file is kept.
"""

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoint import tensors_digest
from .config import TrainConfig
from .data.canvas import cache_folder, store_digest
from .data.dataset import Split
from .data.mapped import Bytes, find, key_of, locked, writing
from .model.chain import Cut, FrozenOutputs, find_chain
from .model.detectors import Detector
from .model.freezing import set_depth
from .phase_cache import environment
from .precision import DTYPES, autocast

log = logging.getLogger(__name__)

CAP = 20 * 10**9
"""Bytes that all files together may take on a machine; what was not used for longest goes first."""
SHARE = 0.5
"""Of the disk's free space, what new files may take at most."""

KINDS = {"none": (False,), "flip": (False, True)}
"""By `train.augment` whether pictures are mirrored; other augmentation makes ever new pictures."""


@dataclass(frozen=True)
class KeptOutputs:
    """Outputs of the frozen stages for the pictures of a split."""

    detector: Detector
    cut: Cut
    canvases: Bytes
    precision: str
    stores: dict[bool, list[Bytes]]
    """By whether pictures are mirrored; a file (n, H, W, C x bytes of a number) for each of
    `cut.kept`. Empty where the disk has no room: then all are computed whenever they are needed."""

    @property
    def count(self) -> int:
        """Pictures that are read from files."""
        return len(self.canvases) if self.stores else 0

    def __call__(self, places: Iterable[int], mirrored: Sequence[bool]) -> FrozenOutputs:
        """The outputs for pictures at these positions of the split, each mirrored or not."""
        rows = [self._rows(*one) for one in zip(places, mirrored, strict=True)]
        dtype = DTYPES[self.precision]
        tensors = [
            torch.from_numpy(np.stack(own)).view(dtype).permute(0, 3, 1, 2)
            for own in zip(*rows, strict=True)
        ]
        return FrozenOutputs(self.cut, tensors)

    def _rows(self, place: int, mirrored: bool) -> list[Bytes]:
        if mirrored in self.stores:
            return [store[place] for store in self.stores[mirrored]]
        return compute(self.detector, self.cut, self.canvases[place], mirrored, self.precision)


@torch.no_grad()
def compute(
    detector: Detector, cut: Cut, canvas: Bytes, mirrored: bool, precision: str
) -> list[Bytes]:
    """The frozen outputs for one canvas (S, S, 3), each (H, W, C x bytes of a number)."""
    where = detector.mean.device
    picture = torch.from_numpy(canvas[:, ::-1].copy() if mirrored else np.array(canvas))
    with autocast(where, precision):
        pixels = detector.normalize(picture.permute(2, 0, 1)[None].to(where))
        outputs = cut.frozen_outputs(pixels)
    return [_to_bytes(output, DTYPES[precision]) for output in outputs]


def _to_bytes(output: Tensor, dtype: torch.dtype) -> Bytes:
    row: Bytes = output[0].to("cpu", dtype).permute(1, 2, 0).contiguous().view(torch.uint8).numpy()
    return row


def keep_outputs(
    detector: Detector,
    depth: int,
    config: TrainConfig,
    splits: Sequence[tuple[Split, Bytes]],
    folder: Path,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, KeptOutputs]:
    """Outputs of the stages frozen at a depth, by the name of the split, whose canvases are given.

    None of train where augmentation makes ever new pictures, and none at all of a backbone that is
    no chain. Leaves the detector as for the head phase.
    """
    set_depth(detector, detector.stages, 0)  # what a phase drops above is no part of what is below
    first = torch.from_numpy(np.array(splits[0][1][:1])).permute(0, 3, 1, 2)
    pixels = detector.normalize(first.to(detector.mean.device))
    chain = find_chain(detector.backbone, detector.stages, pixels)
    cut = chain.cut(depth) if chain else None
    if cut is None:
        return {}
    kept = {}
    for split, canvases in splits:
        kinds = KINDS.get(config.train.augment, ()) if split.name == "train" else KINDS["none"]
        if kinds:
            kept[split.name] = open_outputs(
                detector,
                cut,
                canvases,
                store_digest(split, config.model.image_size),
                mirrored=kinds,
                precision=config.train.precision,
                folder=folder,
                on_step=on_step,
            )
    return kept


def open_outputs(
    detector: Detector,
    cut: Cut,
    canvases: Bytes,
    pictures: str,
    *,
    mirrored: Sequence[bool],
    precision: str,
    folder: Path,
    on_step: Callable[[], None] = lambda: None,
) -> KeptOutputs:
    """The outputs for a split, from files under `folder` that are made where they are not there.

    `pictures` identifies the canvases; `mirrored` says which kinds are needed. The frozen stages
    are in eval mode. Safe for many processes at once: one makes a file, whole or not at all, the
    others wait. A damaged file is thrown away and made again. `on_step` is called again and again.
    """
    trunk = _digests(detector, cut)
    where = detector.mean.device
    stores = {}
    for kind in mirrored:
        known = [pictures, str(kind), precision, *environment(where)]
        keys = [hashlib.sha256("\n".join([t, *known]).encode()).hexdigest()[:32] for t in trunk]

        def rows(kind: bool = kind) -> Iterator[list[Bytes]]:
            for canvas in canvases:
                on_step()
                yield compute(detector, cut, canvas, kind, precision)

        found = _open_or_make(folder, keys, len(canvases), rows, on_step)
        if found:
            stores[kind] = found
    return KeptOutputs(detector, cut, canvases, precision, stores)


def _digests(detector: Detector, cut: Cut) -> list[str]:
    """For each of the cut's outputs all that it depends on in the model."""
    total = hashlib.sha256(f"{detector.mean.tolist()} {detector.std.tolist()}".encode())
    found = []
    for position, unit in enumerate(cut.chain.units[: cut.first]):
        total.update(f"{unit} {tensors_digest(unit)}".encode())
        if position in cut.kept:
            found.append(total.hexdigest())
    return found


def _open_or_make(
    folder: Path,
    keys: list[str],
    count: int,
    rows: Callable[[], Iterator[list[Bytes]]],
    on_step: Callable[[], None],
) -> list[Bytes] | None:
    """The files of these keys; None where there is no room for them."""
    if found := _open_all(folder, keys, on_step):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", on_step):
        missing = [i for i, key in enumerate(keys) if find(folder, key, on_step) is None]
        try:
            if missing:  # else another process has made them
                _make(folder, keys, missing, count, rows)
        except OSError as error:
            log.warning("outputs of the frozen stages are not kept: %s", error)
        return _open_all(folder, keys, on_step)


def _open_all(folder: Path, keys: list[str], on_step: Callable[[], None]) -> list[Bytes] | None:
    found = [store for key in keys if (store := find(folder, key, on_step)) is not None]
    return found if len(found) == len(keys) else None


def _make(
    folder: Path,
    keys: list[str],
    missing: list[int],
    count: int,
    rows: Callable[[], Iterator[list[Bytes]]],
) -> None:
    """Write the missing files in one pass over the pictures. Raises OSError where the disk has no
    room for them."""
    for part in folder.glob("*.part"):
        part.unlink()  # of a process that died: the lock is ours
    with contextlib.ExitStack() as opened:
        add = {i: opened.enter_context(writing(folder, keys[i], count)) for i in missing}
        for number, own in enumerate(rows()):
            if number == 0:
                _make_room(folder, count * sum(own[i].nbytes for i in missing), set(keys))
            for i in missing:
                add[i](own[i])


def _make_room(folder: Path, wanted: int, needed: set[str]) -> None:
    """Delete what was not used for longest until new files fit under the cap. Raises OSError."""
    if problem := no_room(folder, wanted):
        raise OSError(problem)
    files = sorted(folder.glob("*.npy"), key=lambda file: -file.stat().st_mtime)
    left = CAP - wanted
    for file in sorted(files, key=lambda file: key_of(file) not in needed):
        left -= file.stat().st_size
        if left < 0:
            file.unlink()  # who maps it keeps it until it ends


def no_room(folder: Path, wanted: int) -> str:
    """Why files of that many bytes are not kept in a folder; empty where they can be."""
    if wanted > CAP:
        return f"they would take {wanted / 1e9:.1f} GB, of at most {CAP / 1e9:.0f}"
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if wanted > SHARE * free:
        return (
            f"they would take {wanted / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} "
            f"GB free, of which they may take {SHARE:.0%}"
        )
    return ""


def outputs_folder() -> Path:
    """Where this machine keeps the files."""
    return cache_folder() / "outputs"
