"""Frozen features: what the frozen stages compute for a picture, the same in every epoch.

The frozen stages keep their pretrained weights, since depth never falls, and the canvas size is
fixed. So their features depend only on the picture, and on whether it is mirrored. Each picture is
run by itself and its features are rounded to the training precision. So they have the same bits in
every process, and whether or not they come from a file.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import TrainConfig
from ..data.canvas_store import canvases_digest
from ..data.dataset import Split
from ..data.shared_arrays import Bytes
from ..model.acceleration.chain import Cut, FrozenFeatures, find_chain
from ..model.checkpoint import tensors_digest
from ..model.detectors import Detector
from ..model.freezing import set_depth
from ..precision import DTYPES, autocast
from .environment import environment
from .feature_files import Pass, open_or_make

ORIENTATIONS = {"none": (False,), "flip": (False, True)}
"""Whether pictures are mirrored, by `train.augment`. Other augmentation has no fixed pictures."""


@dataclass(frozen=True)
class CachedFeatures:
    """The frozen features of the pictures of a split."""

    detector: Detector
    cut: Cut
    """Where the frozen part of the backbone ends."""
    canvases: Bytes
    """(n, S, S, 3) RGB."""
    precision: str
    """The training precision, resolved."""
    files: dict[bool, list[Bytes]]
    """By whether pictures are mirrored: an array (n, H, W, C x bytes of a number) for each of
    `cut.cached`. Empty if the disk has no room: then features are computed at each use."""

    @property
    def count(self) -> int:
        """Number of pictures whose features come from files."""
        return len(self.canvases) if self.files else 0

    def __call__(self, indices: Iterable[int], mirrored: Sequence[bool]) -> FrozenFeatures:
        """The features of some pictures of the split, each mirrored or not."""
        rows = [self._rows(*one) for one in zip(indices, mirrored, strict=True)]
        dtype = DTYPES[self.precision]
        tensors = [
            torch.from_numpy(np.stack(arrays)).view(dtype).permute(0, 3, 1, 2)
            for arrays in zip(*rows, strict=True)
        ]
        return FrozenFeatures(self.cut, tensors)

    def _rows(self, index: int, mirrored: bool) -> list[Bytes]:
        if mirrored in self.files:
            return [array[index] for array in self.files[mirrored]]
        return compute(self.detector, self.cut, self.canvases[index], mirrored, self.precision)


@torch.no_grad()
def compute(
    detector: Detector, cut: Cut, canvas: Bytes, mirrored: bool, precision: str
) -> list[Bytes]:
    """The frozen features of one canvas (S, S, 3), each (H, W, C x bytes of a number)."""
    device = detector.mean.device
    picture = torch.from_numpy(canvas[:, ::-1].copy() if mirrored else np.array(canvas))
    with autocast(device, precision):
        pixels = detector.normalize(picture.permute(2, 0, 1)[None].to(device))
        outputs = cut.run_frozen(pixels)
    return [_to_bytes(output, DTYPES[precision]) for output in outputs]


def _to_bytes(output: Tensor, dtype: torch.dtype) -> Bytes:
    row: Bytes = output[0].to("cpu", dtype).permute(1, 2, 0).contiguous().view(torch.uint8).numpy()
    return row


def cache_frozen_features(
    detector: Detector,
    depth: int,
    config: TrainConfig,
    splits: Sequence[tuple[Split, Bytes]],
    folder: Path,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, CachedFeatures]:
    """The frozen features at a depth, cached on disk. Leaves the detector at depth 0.

    A damaged file is deleted and made again.

    Args:
        detector: The detector; its frozen stages have their pretrained weights.
        depth: Number of unfrozen stages, counted from the head end.
        config: The config, with its precision resolved.
        splits: Each split with its canvases (n, S, S, 3).
        folder: Folder of the files. Missing files are made.
        on_step: Called for every picture, and while this process waits for another one.

    Returns:
        The features by the name of the split. Without train if augmentation changes its pictures
        every time. Empty if the backbone is not a chain of modules, or has no frozen stage.
    """
    cut = _find_cut(detector, depth, splits[0][1])
    if cut is None:
        return {}
    passes = _passes(detector, cut, config, splits)
    make = partial(compute, detector, cut, precision=config.train.precision)
    arrays = open_or_make(folder, passes, make, on_step)
    features = {}
    for split, canvases in splits:
        files = {
            one.mirrored: opened
            for one, opened in zip(passes, arrays, strict=True)
            if one.split == split.name and opened
        }
        if needed := orientations(config, split.name):
            complete = files if len(files) == len(needed) else {}
            features[split.name] = CachedFeatures(
                detector, cut, canvases, config.train.precision, complete
            )
    return features


def orientations(config: TrainConfig, split: str) -> tuple[bool, ...]:
    """Whether pictures of a split are mirrored: (False,), (False, True), or () if not cached."""
    return ORIENTATIONS.get(config.train.augment, ()) if split == "train" else ORIENTATIONS["none"]


def _find_cut(detector: Detector, depth: int, canvases: Bytes) -> Cut | None:
    """Where the frozen stages end; None if the backbone is not a chain or no stage is frozen."""
    set_depth(detector, detector.stages, 0)  # stochastic depth above must not change the features
    first = torch.from_numpy(np.array(canvases[:1])).permute(0, 3, 1, 2)
    pixels = detector.normalize(first.to(detector.mean.device))
    chain = find_chain(detector.backbone, detector.stages, pixels)
    return chain.cut(depth) if chain else None


def _passes(
    detector: Detector, cut: Cut, config: TrainConfig, splits: Sequence[tuple[Split, Bytes]]
) -> list[Pass]:
    """The runs of the frozen stages that the splits need, with the keys of their files."""
    weights = _weights_digests(detector, cut)
    current = environment(detector.mean.device).values()
    passes = []
    for split, canvases in splits:
        pictures = canvases_digest(split, config.model.image_size)
        for mirrored in orientations(config, split.name):
            inputs = [pictures, str(mirrored), config.train.precision, *current]
            keys = [_key([digest, *inputs]) for digest in weights]
            passes.append(Pass(split.name, canvases, mirrored, keys))
    return passes


def _weights_digests(detector: Detector, cut: Cut) -> list[str]:
    """For each array of features the digest of all weights that it depends on."""
    total = hashlib.sha256(f"{detector.mean.tolist()} {detector.std.tolist()}".encode())
    digests = []
    for position, unit in enumerate(cut.chain.units[: cut.first_open]):
        total.update(f"{unit} {tensors_digest(unit)}".encode())
        if position in cut.cached:
            digests.append(total.hexdigest())
    return digests


def _key(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
