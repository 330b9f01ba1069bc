"""Outputs of frozen stages: computed once a machine, kept in files that all trials map.

Below the open stages everything is as it was pretrained, since depth never falls, and the canvas is
fixed: what comes out there depends on the picture, and on whether it is mirrored, alone. Each
picture is run by itself and its outputs are rounded to the training precision, so that they are the
same bits whoever computes them, and whether or not a file is kept.
"""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import TrainConfig
from ..data.canvas import cache_folder, store_digest
from ..data.dataset import Split
from ..data.mapped import Bytes, find, key_of, locked, writing
from ..model.acceleration.chain import Cut, FrozenOutputs, find_chain
from ..model.checkpoint import tensors_digest
from ..model.detectors import Detector
from ..model.freezing import set_depth
from ..precision import DTYPES, autocast
from .phase_cache import environment

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
    no chain. They are in files under `folder`, which are made where they are not there. Safe for
    many processes at once: one makes a file, whole or not at all, the others wait. A damaged file
    is thrown away and made again. `on_step` is called again and again. Leaves the detector as for
    the head phase.
    """
    set_depth(detector, detector.stages, 0)  # what a phase drops above is no part of what is below
    first = torch.from_numpy(np.array(splits[0][1][:1])).permute(0, 3, 1, 2)
    pixels = detector.normalize(first.to(detector.mean.device))
    chain = find_chain(detector.backbone, detector.stages, pixels)
    cut = chain.cut(depth) if chain else None
    if cut is None:
        return {}
    precision = config.train.precision
    trunk = _digests(detector, cut)
    here = environment(detector.mean.device).values()
    passes = []
    for split, canvases in splits:
        pictures = store_digest(split, config.model.image_size)
        for mirrored in kinds(config, split.name):
            known = [pictures, str(mirrored), precision, *here]
            passes.append(_Pass(split.name, canvases, mirrored, _keys(trunk, known)))
    make = partial(compute, detector, cut, precision=precision)
    opened = list(zip(passes, _open_or_make(folder, passes, make, on_step), strict=True))
    kept = {}
    for split, canvases in splits:
        stores = {one.mirrored: own for one, own in opened if one.split == split.name and own}
        if wanted := kinds(config, split.name):
            whole = stores if len(stores) == len(wanted) else {}
            kept[split.name] = KeptOutputs(detector, cut, canvases, precision, whole)
    return kept


def kinds(config: TrainConfig, split: str) -> tuple[bool, ...]:
    """Whether pictures of a split are mirrored, as far as their outputs are kept."""
    return KINDS.get(config.train.augment, ()) if split == "train" else KINDS["none"]


@dataclass(frozen=True)
class _Pass:
    """One run of the frozen stages over a split."""

    split: str
    canvases: Bytes
    mirrored: bool
    keys: list[str]
    """Of the files that it fills, one for each of the cut's outputs."""


def _digests(detector: Detector, cut: Cut) -> list[str]:
    """For each of the cut's outputs all that it depends on in the model."""
    total = hashlib.sha256(f"{detector.mean.tolist()} {detector.std.tolist()}".encode())
    found = []
    for position, unit in enumerate(cut.chain.units[: cut.first]):
        total.update(f"{unit} {tensors_digest(unit)}".encode())
        if position in cut.kept:
            found.append(total.hexdigest())
    return found


def _keys(trunk: Sequence[str], known: Sequence[str]) -> list[str]:
    return [hashlib.sha256("\n".join([own, *known]).encode()).hexdigest()[:32] for own in trunk]


def _open_or_make(
    folder: Path,
    passes: Sequence[_Pass],
    make: Callable[[Bytes, bool], list[Bytes]],
    on_step: Callable[[], None],
) -> list[list[Bytes] | None]:
    """The files of each pass; None where there is no room for them."""

    def look() -> list[list[Bytes] | None]:
        return [_open_all(folder, one.keys, on_step) for one in passes]

    if None not in (found := look()):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", on_step):
        try:
            _make_missing(folder, passes, make, on_step)
        except OSError as error:
            log.warning("outputs of the frozen stages are not kept: %s", error)
        return look()


def _open_all(folder: Path, keys: list[str], on_step: Callable[[], None]) -> list[Bytes] | None:
    found = [store for key in keys if (store := find(folder, key, on_step)) is not None]
    return found if len(found) == len(keys) else None


def _make_missing(
    folder: Path,
    passes: Sequence[_Pass],
    make: Callable[[Bytes, bool], list[Bytes]],
    on_step: Callable[[], None],
) -> None:
    """Write the files that are not there, each pass at once. Raises OSError where the disk has no
    room for all of them."""
    for part in folder.glob("*.part"):
        part.unlink()  # of a process that died: the lock is ours
    missing = {key for one in passes for key in one.keys if find(folder, key, on_step) is None}
    if not missing:
        return  # another process has made them
    sizes = [row.nbytes for row in make(passes[0].canvases[0], False)]
    _make_room(
        folder,
        {
            key: size * len(one.canvases)
            for one in passes
            for key, size in zip(one.keys, sizes, strict=True)
        },
        missing,
    )
    for one in passes:
        if not missing.isdisjoint(one.keys):
            with contextlib.ExitStack() as opened:
                add = {
                    place: opened.enter_context(writing(folder, key, len(one.canvases)))
                    for place, key in enumerate(one.keys)
                    if key in missing
                }
                for canvas in one.canvases:
                    on_step()
                    rows = make(canvas, one.mirrored)
                    for place, write in add.items():
                        write(rows[place])


def _make_room(folder: Path, needed: dict[str, int], missing: set[str]) -> None:
    """Delete what was not used for longest until the missing ones of the needed files, of that many
    bytes, have room beside the others. Raises OSError."""
    if problem := no_room(folder, sum(needed.values())):
        raise OSError(problem)
    files = _files(folder)
    wanted = sum(needed[key] for key in missing)
    used = sum(file.st_size for file in files.values())
    free = shutil.disk_usage(folder).free
    for path, file in sorted(files.items(), key=lambda item: item[1].st_mtime):
        if used + wanted <= CAP and wanted <= SHARE * free:
            break
        if key_of(path) not in needed:
            path.unlink(missing_ok=True)  # who maps it keeps it until it ends
            used -= file.st_size
            free += file.st_size


def no_room(folder: Path, wanted: int) -> str:
    """Why files of that many bytes together are not kept in a folder; empty where they can be. What
    the folder holds counts as free: it is one of them, or makes room for them."""
    if wanted > CAP:
        return f"they would take {wanted / 1e9:.1f} GB, of at most {CAP / 1e9:.0f}"
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    held = sum(file.st_size for file in _files(folder).values())
    free = shutil.disk_usage(there).free + held
    if wanted > SHARE * free:
        return (
            f"they would take {wanted / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} "
            f"GB free, of which they may take {SHARE:.0%}"
        )
    return ""


def _files(folder: Path) -> dict[Path, os.stat_result]:
    found = {}
    for file in folder.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another process needs its room
            found[file] = file.stat()
    return found


def outputs_folder() -> Path:
    """Where this machine keeps the files."""
    return cache_folder() / "outputs"
