"""Batches of an epoch: a pure function of (seed, epoch, index)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.acceleration.chain import FrozenOutputs
from .augment import FLIPPING, LIGHT, flip, light
from .canvas import scales
from .dataset import Picture, Split


class Batch(NamedTuple):
    """What a step trains on."""

    pictures: Tensor
    """(n, 3, S, S) uint8, channels last."""
    targets: list[dict[str, Tensor]]
    frozen: FrozenOutputs | None = None
    """What the frozen stages gave for these pictures, where that is kept."""

    def pinned(self) -> "Batch":
        """The same in memory from which a GPU copies while its host goes on."""
        return Batch(
            self.pictures.pin_memory(),
            [{k: v.pin_memory() for k, v in t.items()} for t in self.targets],
            self.frozen and self.frozen.pinned(),
        )

    def to(self, where: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(
            self.pictures.to(where, non_blocking=True),
            [{k: v.to(where, non_blocking=True) for k, v in t.items()} for t in self.targets],
            self.frozen and self.frozen.to(where),
        )


Outputs = Callable[[Iterable[int], Sequence[bool]], FrozenOutputs]
"""Gives what the frozen stages gave, by positions in the split and whether each is mirrored."""


def batches(
    split: Split,
    canvases: NDArray[np.uint8],
    *,
    batch_size: int,
    augment: str,
    seed: int,
    epoch: int,
    outputs: Outputs | None = None,
    makers: int = 0,
) -> Iterator[Batch]:
    """Shuffled batches of an epoch, with `outputs` of the frozen stages where they are kept.

    Every picture comes once; batch sizes differ by at most one, so that no BatchNorm ever sees a
    leftover of one picture. `makers` threads make them ahead, see `makers_for`.
    """

    def make(indices: NDArray[np.int64]) -> Batch:
        pictures = torch.from_numpy(canvases[indices]).permute(0, 3, 1, 2)
        targets = [target(split.pictures[i], canvases.shape[1]) for i in indices]
        random = [generator(seed, epoch, 1 + i) for i in indices]
        flips = [augment in FLIPPING and bool(own.integers(2)) for own in random]
        if any(flips):
            pictures, targets = flip(pictures, targets, flips)
        if augment in LIGHT:
            changed = [light(*one) for one in zip(pictures, targets, random, strict=True)]
            pictures = torch.stack([picture for picture, _ in changed])
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            targets = [target for _, target in changed]
        return Batch(pictures, targets, outputs(indices, flips) if outputs else None)

    order = generator(seed, epoch, 0).permutation(len(split.pictures))
    parts = np.array_split(order, steps(len(order), batch_size))
    return _ahead(make, parts, makers) if makers else map(make, parts)


def _ahead(
    make: Callable[[NDArray[np.int64]], Batch], parts: Sequence[NDArray[np.int64]], makers: int
) -> Iterator[Batch]:
    """What `make` makes of each part, in order, by threads that are as many batches ahead."""

    def make_pinned(part: NDArray[np.int64]) -> Batch:
        batch = make(part)
        return batch.pinned() if torch.cuda.is_available() else batch

    with ThreadPoolExecutor(makers) as pool:
        coming: deque[Future[Batch]] = deque()
        try:
            for part in parts:
                coming.append(pool.submit(make_pinned, part))
                if len(coming) > makers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for batch in coming:  # nobody wants what is left where training ends early
                batch.cancel()


@contextmanager
def makers_for(where: torch.device) -> Iterator[int]:
    """How many threads make batches for training on a device: none on a CPU, which trains with all
    cores of a trial; beside a GPU all but the one that tells it what to do.

    Each works alone, and so does all else meanwhile: a process has one number of torch's threads.
    """
    threads = torch.get_num_threads()
    if where.type == "cpu":
        yield 0
        return
    torch.set_num_threads(1)
    try:
        yield max(1, threads - 1)
    finally:
        torch.set_num_threads(threads)


def steps(pictures: int, batch_size: int) -> int:
    """Optimizer steps in an epoch."""
    # rather one of three than one of two and one of one
    return pictures if batch_size == 1 else max(1, min(ceil(pictures / batch_size), pictures // 2))


def generator(*key: int) -> np.random.Generator:
    """A generator that depends on its key alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def target(picture: Picture, size: int) -> dict[str, Tensor]:
    """Boxes to train on: x1, y1, x2, y2 on the canvas, clipped to the picture; apart, as `ignored`,
    crowds and boxes to ignore, where there are some."""
    across, down = scales(picture.width, picture.height, size)
    corners = np.concatenate(
        [picture.boxes[:, :2], picture.boxes[:, :2] + picture.boxes[:, 2:]], axis=1
    )
    inside = corners.clip(0, [picture.width, picture.height] * 2)
    corners = (inside * np.array([across, down, across, down])).astype(np.float32)
    sound = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    objects, ignored = sound & ~picture.crowd, sound & picture.crowd
    found = {
        "boxes": torch.from_numpy(corners[objects]),
        "labels": torch.from_numpy(picture.labels[objects]),
    }
    return found | ({"ignored": torch.from_numpy(corners[ignored])} if ignored.any() else {})
