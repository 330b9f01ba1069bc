"""What a few steps tell: how long epochs will take, how much of a GPU's memory, and whether keeping
the frozen stages' outputs pays."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..config import TrainConfig
from ..data.batches import batches, makers_for, steps
from ..data.canvas import letterbox
from ..data.dataset import Split, Splits
from ..data.mapped import Bytes
from ..evaluation.coco_metrics import BATCH_SIZE, detect
from ..machine_errors import is_of_accelerator
from ..model.detectors import build
from ..model.freezing import set_depth
from ..phases import Phase, plan
from ..precision import device, resolve
from . import optim
from .engine import Diverged, train_one_epoch
from .frozen_features import KeptOutputs, keep_outputs, kinds, no_room, outputs_folder

TIMED = 2
"""Steps that are timed, after one that warms up."""
GAIN = 1.2
"""How many times as fast kept outputs must make a phase, to be kept for it."""
ROUNDS = 3
"""Times that a phase is timed with kept outputs and without, in turn."""
FEW = 4
"""Pictures a step while that is compared, and of val."""


@dataclass(frozen=True)
class Timing:
    """Seconds an epoch, training and evaluation together."""

    head: float
    unfrozen: float


@dataclass(frozen=True)
class TrunkCacheChoice:
    """What `train.trunk_cache: auto` comes to on this machine."""

    setting: int | Literal["off"]
    text: str
    """A line that says why."""
    gains: tuple[float, ...] = ()
    """How many times as fast they make a phase, by its depth, as far as they are kept."""


def time_epochs(config: TrainConfig, data: Splits, threads: int) -> Timing:
    """Time a few steps of the head phase and of the deepest phase, on pictures of the data.

    Leaves nothing behind. Raises what `fit` raises.
    """
    with _threads(threads), tempfile.TemporaryDirectory() as folder:
        largest = max(config.train.head.batch_size, config.train.unfreeze.batch_size)
        probe = _Probe(config, data, Path(folder), largest)
        phases = plan(probe.config.train, len(probe.detector.stages))
        head, unfrozen = (
            probe.seconds(phase, probe.keep(phase.depth) if phase.keep_outputs else {})
            for phase in (phases[0], phases[-1])
        )
    return Timing(head, unfrozen)


def memory_share(config: TrainConfig, data: Splits, threads: int) -> float:
    """Share of its GPU's memory that a trial of this configuration takes: what is in use, by CUDA
    itself and anybody else too, after a few steps of its first and its deepest phase. 0 on a CPU, 1
    where these steps fail. This process keeps that memory.
    """
    if device().type == "cpu":
        return 0.0
    try:
        return _memory_share(config, data, threads)
    except (Diverged, MemoryError, RuntimeError) as error:  # what trials will tell better
        if is_of_accelerator(error):
            raise
        return 1.0


def _memory_share(config: TrainConfig, data: Splits, threads: int) -> float:
    with _threads(threads), tempfile.TemporaryDirectory() as folder:
        largest = max(config.train.head.batch_size, config.train.unfreeze.batch_size)
        probe = _Probe(config, data, Path(folder), largest)
        phases = plan(probe.config.train, len(probe.detector.stages))
        for phase in (phases[0], phases[-1]):
            probe.seconds(phase, {})
        free, total = torch.cuda.mem_get_info()
    return 1 - free / total


def choose_trunk_cache(config: TrainConfig, data: Splits, threads: int) -> TrunkCacheChoice:
    """Settle `train.trunk_cache`: `auto` up to the depth at which keeping outputs still makes a
    phase GAIN times as fast, and no setting deeper than the disk has room for. Raises BadInput as
    `fit` does."""
    if config.train.trunk_cache == "off":
        return TrunkCacheChoice("off", "")
    with _threads(threads), tempfile.TemporaryDirectory() as folder:
        try:
            return _choose(_Probe(config, data, Path(folder), FEW))
        except (Diverged, MemoryError, RuntimeError) as error:  # what trials will tell better
            if is_of_accelerator(error):
                raise
            why = (str(error).splitlines() or ["no memory"])[0]
            return TrunkCacheChoice("off", f"outputs of the frozen stages are not kept: {why}")


def _choose(probe: "_Probe") -> TrunkCacheChoice:
    setting, stages = probe.config.train.trunk_cache, len(probe.detector.stages)
    deepest = plan(probe.config.train, stages)[-1]
    gains: list[float] = []
    sizes: dict[int, int] = {}
    taken, depths, why = 0, 0, ""
    for depth in range(stages if setting == "auto" else min(int(setting) + 1, stages)):
        kept = probe.keep(depth)
        if not kept:
            why = "this backbone is no chain of modules"
            break
        sizes |= probe.sizes(kept["val"])
        if problem := no_room(outputs_folder(), sum(sizes.values())):
            why = problem
            break
        if setting == "auto":
            gain = probe.gain(replace(deepest, depth=depth, batch_size=FEW), kept)
            if gain < GAIN:
                why = f"they would make a phase of depth {depth} {gain:.2f} times as fast"
                break
            gains.append(gain)
        taken, depths = sum(sizes.values()), depth + 1
    if setting != "auto" and not why:
        return TrunkCacheChoice(setting, "")
    if not depths:
        return TrunkCacheChoice("off", f"outputs of the frozen stages are not kept: {why}")
    size = f"{taken / 1e9:.1f} GB" if taken > 1e9 else f"{taken / 1e6:.0f} MB"
    text = f"outputs of the frozen stages are kept to depth {depths - 1} ({size})"
    if gains:
        text += f": phases are {', '.join(f'{gain:.1f}' for gain in gains)} times as fast"
    text += f"; not deeper: {why}" if why else ""
    return TrunkCacheChoice(depths - 1, text, tuple(gains))


class _Probe:
    """A detector, a few pictures of a data set, and steps of any phase on them."""

    def __init__(self, config: TrainConfig, data: Splits, folder: Path, batch_size: int) -> None:
        train = config.train.model_copy(update={"precision": resolve(config.train.precision)})
        self.config = config.model_copy(update={"train": train})
        self.data = data
        self.folder = folder
        torch.manual_seed(train.seed)
        self.detector = build(config.model, len(data.categories)).to(device())
        self.optimizer = optim.build(self.detector, train)
        enabled = train.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.detector.mean.device.type, enabled=enabled)
        self.train = self._few(data.train, (TIMED + 1) * batch_size)
        self.val = self._few(data.val, 2 * FEW)

    def _few(self, split: Split, count: int) -> tuple[Split, Bytes]:
        few = Split(split.name, split.pictures[:count], split.categories)
        size = self.config.model.image_size
        return few, np.stack([letterbox(picture, size) for picture in few.pictures])

    def keep(self, depth: int) -> dict[str, KeptOutputs]:
        """Outputs of the stages frozen at a depth, for these pictures."""
        return keep_outputs(self.detector, depth, self.config, [self.train, self.val], self.folder)

    def sizes(self, kept: KeptOutputs) -> dict[int, int]:
        """Bytes of the whole data set's files, by the position of their unit."""
        pictures = sum(
            len(kinds(self.config, split.name)) * len(split.pictures)
            for split in (self.data.train, self.data.val)
        )
        tensors = kept([0], [False]).tensors
        return {
            position: tensor.nbytes * pictures
            for position, tensor in zip(kept.cut.kept, tensors, strict=True)
        }

    def gain(self, phase: Phase, kept: dict[str, KeptOutputs]) -> float:
        """How many times as fast kept outputs make a phase: on a CPU of its time alone, which other
        programs disturb least."""
        clock = time.monotonic if self.detector.mean.is_cuda else time.process_time
        pairs = [
            (self.seconds(phase, {}, clock), self.seconds(phase, kept, clock))
            for _ in range(ROUNDS)
        ]
        # the least disturbed of each
        without, with_them = (min(times) for times in zip(*pairs, strict=True))
        return float(without / with_them)

    def seconds(
        self,
        phase: Phase,
        kept: dict[str, KeptOutputs],
        clock: Callable[[], float] = time.monotonic,
    ) -> float:
        """What an epoch of a phase takes."""
        set_depth(
            self.detector,
            self.detector.stages,
            phase.depth,
            adapt_statistics=phase.adapt_statistics,
            drop_path=phase.drop_path,
        )

        def now() -> float:
            if self.detector.mean.is_cuda:
                torch.cuda.synchronize(self.detector.mean.device)
            return clock()

        count = steps(len(self.data.train.pictures), phase.batch_size)
        epoch = count * self._step(phase, kept.get("train"), now)
        return epoch + len(self.data.val.pictures) * self._picture(kept.get("val"), now)

    def _step(self, phase: Phase, kept: KeptOutputs | None, now: Callable[[], float]) -> float:
        """Seconds a step of training, its batch made beside it where an epoch makes it so."""
        split, canvases = self.train
        few = Split(split.name, split.pictures[: phase.batch_size * (TIMED + 1)], split.categories)
        few_batches = partial(
            batches,
            few,
            canvases,
            batch_size=phase.batch_size,
            augment=self.config.train.augment,
            seed=0,
            epoch=0,
            outputs=kept,
        )
        started: list[float] = []

        def set_step(step: int) -> None:
            started.append(now())
            optim.set_step(self.optimizer, phase, 0, 0, 1)

        with makers_for(self.detector.mean.device) as makers:
            making = now()
            count = sum(1 for _ in few_batches()) if makers else 1
            made = (now() - making) / count / max(1, makers)
            train_one_epoch(
                self.detector,
                self.optimizer,
                self.scaler,
                few_batches(makers=makers),
                set_step=set_step,
                precision=self.config.train.precision,
                clip_norm=self.config.train.clip_norm,
                seed=0,
                epoch=0,
            )
        ended = now()
        warm = started[1:] or started  # the first step also warms up
        # so few batches are all made ahead of a GPU; an epoch waits for those that make them
        return max((ended - warm[0]) / len(warm), made)

    def _picture(self, kept: KeptOutputs | None, now: Callable[[], float]) -> float:
        """Seconds a picture of evaluation."""
        evaluate = partial(
            detect,
            self.detector,
            *self.val,
            precision=self.config.train.precision,
            batch_size=BATCH_SIZE[self.detector.mean.device.type],
            outputs=kept,
        )
        if self.detector.mean.is_cuda:
            evaluate()  # loads and chooses its kernels
        began = now()
        evaluate()
        return (now() - began) / len(self.val[0].pictures)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
