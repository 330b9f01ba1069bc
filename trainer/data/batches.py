"""Batches of an epoch: a pure function of (seed, epoch, index)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.acceleration.chain import FrozenFeatures
from .augment import FLIPPING, LIGHT, flip, light
from .canvas import scales
from .canvas_store import make_ahead
from .dataset import Picture, Split


class Batch(NamedTuple):
    """The input of one optimizer step."""

    pictures: Tensor
    """(n, 3, S, S) uint8, channels last."""
    targets: list[dict[str, Tensor]]
    frozen: FrozenFeatures | None = None
    """Cached features of the frozen stages for these pictures."""

    def pinned(self) -> "Batch":
        """A copy in pinned memory, from which a GPU copies while the CPU goes on."""
        return Batch(
            self.pictures.pin_memory(),
            [{k: v.pin_memory() for k, v in t.items()} for t in self.targets],
            self.frozen and self.frozen.pinned(),
        )

    def to(self, device: torch.device) -> "Batch":
        """A copy on a device."""
        return Batch(
            self.pictures.to(device, non_blocking=True),
            [{k: v.to(device, non_blocking=True) for k, v in t.items()} for t in self.targets],
            self.frozen and self.frozen.to(device),
        )


FeatureLookup = Callable[[Iterable[int], Sequence[bool]], FrozenFeatures]
"""Gives features of the frozen stages by positions in the split and whether each is mirrored."""


def batches(
    split: Split,
    canvases: NDArray[np.uint8],
    *,
    batch_size: int,
    augment: str,
    seed: int,
    epoch: int,
    features: FeatureLookup | None = None,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Shuffled batches of an epoch.

    Every picture comes once. Batch sizes differ by at most one: a last batch of one picture would
    break BatchNorm.

    Args:
        split: Has the boxes.
        canvases: (n, S, S, 3) pictures of the split on their canvases.
        batch_size: The largest batch, or 3 for 2.
        augment: `train.augment`.
        seed: With epoch and index it decides order, flips and changes.
        epoch: From 0.
        features: Cached features of the frozen stages, if there are any.
        num_workers: How many threads prepare batches ahead, see `num_workers_for`.
    """

    def prepare(indices: NDArray[np.int64]) -> Batch:
        pictures = torch.from_numpy(canvases[indices]).permute(0, 3, 1, 2)
        targets = [target(split.pictures[i], canvases.shape[1]) for i in indices]
        random = [generator(seed, epoch, 1 + i) for i in indices]
        flips = [augment in FLIPPING and bool(each.integers(2)) for each in random]
        if any(flips):
            pictures, targets = flip(pictures, targets, flips)
        if augment in LIGHT:
            changed = [light(*one) for one in zip(pictures, targets, random, strict=True)]
            pictures = torch.stack([picture for picture, _ in changed])
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            targets = [target for _, target in changed]
        return Batch(pictures, targets, features(indices, flips) if features else None)

    order = generator(seed, epoch, 0).permutation(len(split.pictures))
    parts = np.array_split(order, steps(len(order), batch_size))
    return _prefetch(prepare, parts, num_workers) if num_workers else map(prepare, parts)


def _prefetch(
    prepare: Callable[[NDArray[np.int64]], Batch],
    parts: Sequence[NDArray[np.int64]],
    num_workers: int,
) -> Iterator[Batch]:
    """Batches in order, prepared by threads; as many batches as threads are prefetched."""

    def prepare_pinned(part: NDArray[np.int64]) -> Batch:
        batch = prepare(part)
        return batch.pinned() if torch.cuda.is_available() else batch

    with make_ahead(prepare_pinned, parts, num_workers) as prepared:
        yield from prepared


@contextmanager
def num_workers_for(device: torch.device) -> Iterator[int]:
    """The number of threads that prepare batches for training on a device.

    None on a CPU, which trains with all cores of the trial. For a GPU all but the one that drives
    it; meanwhile torch uses one thread per operation, as the number counts for the process.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        yield 0
        return
    torch.set_num_threads(1)
    try:
        yield max(1, threads - 1)
    finally:
        torch.set_num_threads(threads)


def steps(pictures: int, batch_size: int) -> int:
    """Optimizer steps in an epoch."""
    # one batch of three rather than one of two and one of one
    return pictures if batch_size == 1 else max(1, min(ceil(pictures / batch_size), pictures // 2))


def generator(*key: int) -> np.random.Generator:
    """A generator that depends on its key alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def target(picture: Picture, size: int) -> dict[str, Tensor]:
    """The training target of a picture on a canvas of `size` pixels.

    Returns:
        `boxes` (n, 4) x1, y1, x2, y2 on the canvas, clipped to the picture, and `labels` (n,). If
        there are crowds or boxes to ignore, `ignored` (m, 4) has them.
    """
    across, down = scales(picture.width, picture.height, size)
    corners = np.concatenate(
        [picture.boxes[:, :2], picture.boxes[:, :2] + picture.boxes[:, 2:]], axis=1
    )
    inside = corners.clip(0, [picture.width, picture.height] * 2)
    corners = (inside * np.array([across, down, across, down])).astype(np.float32)
    sound = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    objects, ignored = sound & ~picture.crowd, sound & picture.crowd
    result = {
        "boxes": torch.from_numpy(corners[objects]),
        "labels": torch.from_numpy(picture.labels[objects]),
    }
    return result | ({"ignored": torch.from_numpy(corners[ignored])} if ignored.any() else {})
