"""A few training steps, measured: time of an epoch, GPU memory, and the gain of cached features."""

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
from ..data.batches import Batch, batches, num_workers_for, steps
from ..data.canvas import letterbox
from ..data.dataset import Split, Splits
from ..data.shared_arrays import Bytes
from ..evaluation.detections import BATCH_SIZE, detect
from ..machine_errors import is_accelerator_error
from ..phases import Phase, plan
from ..precision import default_device as default_device
from . import lr_schedule
from .engine import DivergedError, train_one_epoch
from .feature_files import features_folder, space_problem
from .frozen_features import CachedFeatures, cache_frozen_features, orientations
from .trial_state import build_learner, with_resolved_precision

TIMED_STEPS = 2
"""Steps that are timed, after one warm-up step."""
MIN_SPEEDUP = 1.2
"""Cached features are used where they make a phase at least this many times as fast."""
ROUNDS = 3
"""Number of times that a phase is timed with cached features and without, in turn."""
PROBE_BATCH_SIZE = 4
"""Pictures a step for that comparison; the probe has twice as many pictures of val."""

NOT_CACHED = "features of the frozen stages are not cached"

Clock = Callable[[], float]
"""Gives a time in seconds."""
Features = dict[str, CachedFeatures]
"""Frozen features by the name of the split; empty for none."""


@dataclass(frozen=True)
class Timing:
    """Duration of an epoch in seconds, training and evaluation together."""

    head: float
    """An epoch of the first phase."""
    unfrozen: float
    """An epoch of the deepest phase."""


@dataclass(frozen=True)
class FeatureCacheChoice:
    """The value that `train.trunk_cache: auto` gets on this machine."""

    setting: int | Literal["off"]
    """The largest depth at which features are cached."""
    text: str
    """The choice and its reason in one line; empty if the user's value is kept."""
    speedups: tuple[float, ...] = ()
    """By depth, how many times as fast cached features make a phase; measured for `auto` only."""


def time_epochs(config: TrainConfig, data: Splits, threads: int) -> Timing:
    """Time a few steps of the first and of the deepest phase, on pictures of the data.

    Leaves no files. Raises the errors of `fit`.
    """
    with _threads(threads), tempfile.TemporaryDirectory() as folder:
        probe = _Probe(config, data, Path(folder), _largest_batch(config))
        first, deepest = (
            probe.epoch_seconds(
                phase, probe.frozen_features(phase.depth) if phase.caches_features else {}
            )
            for phase in probe.first_and_deepest()
        )
    return Timing(first, deepest)


def gpu_memory_fraction(config: TrainConfig, data: Splits, threads: int) -> float:
    """Fraction of the GPU's memory that is in use after a few steps of a trial.

    The steps are of the first and of the deepest phase. The memory of CUDA itself and of other
    processes counts. This process keeps the memory.

    Returns:
        The fraction; 0 on a CPU, 1 if the steps fail.
    """
    if default_device().type == "cpu":
        return 0.0
    try:
        return _memory_fraction(config, data, threads)
    except (DivergedError, MemoryError, RuntimeError) as error:  # a trial will report it in detail
        if is_accelerator_error(error):
            raise
        return 1.0


def _memory_fraction(config: TrainConfig, data: Splits, threads: int) -> float:
    with _threads(threads), tempfile.TemporaryDirectory() as folder:
        probe = _Probe(config, data, Path(folder), _largest_batch(config))
        for phase in probe.first_and_deepest():
            probe.epoch_seconds(phase, {})
        free, total = torch.cuda.mem_get_info()
    return 1 - free / total


def _largest_batch(config: TrainConfig) -> int:
    return max(config.train.head.batch_size, config.train.unfreeze.batch_size)


def choose_cache_depth(config: TrainConfig, data: Splits, threads: int) -> FeatureCacheChoice:
    """Resolve `train.trunk_cache`.

    `auto` becomes the largest depth at which cached features make a phase MIN_SPEEDUP times as
    fast. Every value is limited to what the disk has room for. Raises InputError as `fit` does.
    """
    if config.train.trunk_cache == "off":
        return FeatureCacheChoice("off", "")
    with _threads(threads), tempfile.TemporaryDirectory() as folder:
        try:
            return _choose(_Probe(config, data, Path(folder), PROBE_BATCH_SIZE))
        except (
            DivergedError,
            MemoryError,
            RuntimeError,
        ) as error:  # a trial will report it in detail
            if is_accelerator_error(error):
                raise
            reason = (str(error).splitlines() or ["no memory"])[0]
            return FeatureCacheChoice("off", f"{NOT_CACHED}: {reason}")


def _choose(probe: "_Probe") -> FeatureCacheChoice:
    """Try depth after depth, from 0, until caching has no gain or no room."""
    setting, stages = probe.config.train.trunk_cache, len(probe.learner.detector.stages)
    deepest = plan(probe.config.train, stages)[-1]
    speedups: list[float] = []
    sizes: dict[int, int] = {}
    used_bytes, depths, reason = 0, 0, ""
    for depth in range(stages if setting == "auto" else min(int(setting) + 1, stages)):
        features = probe.frozen_features(depth)
        if not features:
            reason = "this backbone is not a chain of modules"
            break
        sizes |= probe.file_sizes(features["val"])
        if reason := space_problem(features_folder(), sum(sizes.values())):
            break
        if setting == "auto":
            phase = replace(deepest, depth=depth, batch_size=PROBE_BATCH_SIZE)
            speedup = probe.speedup(phase, features)
            if speedup < MIN_SPEEDUP:
                reason = f"they would make a phase of depth {depth} {speedup:.2f} times as fast"
                break
            speedups.append(speedup)
        used_bytes, depths = sum(sizes.values()), depth + 1
    if setting != "auto" and not reason:
        return FeatureCacheChoice(setting, "")
    if not depths:
        return FeatureCacheChoice("off", f"{NOT_CACHED}: {reason}")
    text = _describe(depths - 1, used_bytes, speedups, reason)
    return FeatureCacheChoice(depths - 1, text, tuple(speedups))


def _describe(depth: int, used_bytes: int, speedups: list[float], reason: str) -> str:
    size = f"{used_bytes / 1e9:.1f} GB" if used_bytes > 1e9 else f"{used_bytes / 1e6:.0f} MB"
    text = f"features of the frozen stages are cached to depth {depth} ({size})"
    if speedups:
        text += f": phases are {', '.join(f'{speedup:.1f}' for speedup in speedups)} times as fast"
    return text + (f"; not deeper: {reason}" if reason else "")


class _Probe:
    """A detector, a few pictures of a data set, and timed steps of any phase on them."""

    def __init__(self, config: TrainConfig, data: Splits, folder: Path, batch_size: int) -> None:
        self.config = with_resolved_precision(config)
        self.data = data
        self.folder = folder
        self.learner = build_learner(self.config, len(data.categories), default_device())
        self.device = self.learner.detector.mean.device
        self.train = self._few(data.train, (TIMED_STEPS + 1) * batch_size)
        self.val = self._few(data.val, 2 * PROBE_BATCH_SIZE)

    def _few(self, split: Split, count: int) -> tuple[Split, Bytes]:
        few = Split(split.name, split.pictures[:count], split.categories)
        size = self.config.model.image_size
        return few, np.stack([letterbox(picture, size) for picture in few.pictures])

    def first_and_deepest(self) -> tuple[Phase, Phase]:
        """The first and the last phase of a trial."""
        phases = plan(self.config.train, len(self.learner.detector.stages))
        return phases[0], phases[-1]

    def frozen_features(self, depth: int) -> Features:
        """Frozen features at a depth, for the few pictures."""
        splits = [self.train, self.val]
        return cache_frozen_features(self.learner.detector, depth, self.config, splits, self.folder)

    def file_sizes(self, features: CachedFeatures) -> dict[int, int]:
        """Bytes of the files for all pictures of the data set, by position in the chain."""
        pictures = sum(
            len(orientations(self.config, split.name)) * len(split.pictures)
            for split in (self.data.train, self.data.val)
        )
        tensors = features([0], [False]).tensors
        return {
            position: tensor.nbytes * pictures
            for position, tensor in zip(features.cut.cached, tensors, strict=True)
        }

    def speedup(self, phase: Phase, features: Features) -> float:
        """How many times as fast cached features make a phase.

        On a CPU the process time is measured, which other programs disturb least.
        """
        clock = time.monotonic if self.device.type == "cuda" else time.process_time
        pairs = [
            (self.epoch_seconds(phase, {}, clock), self.epoch_seconds(phase, features, clock))
            for _ in range(ROUNDS)
        ]
        # the shortest time is the least disturbed one
        without, with_them = (min(times) for times in zip(*pairs, strict=True))
        return float(without / with_them)

    def epoch_seconds(
        self, phase: Phase, features: Features, clock: Clock = time.monotonic
    ) -> float:
        """Duration of an epoch of a phase on the data set, training and evaluation."""
        self.learner.set_freeze_state(phase)

        def now() -> float:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return clock()

        count = steps(len(self.data.train.pictures), phase.batch_size)
        training = count * self._step_seconds(phase, features.get("train"), now)
        evaluation = self._picture_seconds(features.get("val"), now)
        return training + len(self.data.val.pictures) * evaluation

    def _step_seconds(self, phase: Phase, features: CachedFeatures | None, now: Clock) -> float:
        """Duration of a training step, with its batch."""
        split, canvases = self.train
        count = phase.batch_size * (TIMED_STEPS + 1)
        make_batches = partial(
            batches,
            Split(split.name, split.pictures[:count], split.categories),
            canvases,
            batch_size=phase.batch_size,
            augment=self.config.train.augment,
            seed=0,
            epoch=0,
            features=features,
        )
        with num_workers_for(self.device) as num_workers:
            started = now()
            made = sum(1 for _ in make_batches()) if num_workers else 1
            batch_seconds = (now() - started) / made / max(1, num_workers)
            starts = self._train(phase, make_batches(num_workers=num_workers), now)
        ended = now()
        warm = starts[1:] or starts  # the first step is the warm-up
        # so few batches are all ready before the GPU needs them; in an epoch it waits for them
        return max((ended - warm[0]) / len(warm), batch_seconds)

    def _train(self, phase: Phase, few_batches: Iterator[Batch], now: Clock) -> list[float]:
        """Train on the batches; returns the time at which each step starts."""
        starts: list[float] = []

        def set_step(step: int) -> None:
            starts.append(now())
            lr_schedule.set_step(self.learner.optimizer, phase, 0, 0, 1)

        train_one_epoch(
            self.learner.detector,
            self.learner.optimizer,
            self.learner.scaler,
            few_batches,
            set_step=set_step,
            after_step=lambda step: self.learner.average.update(phase.ema),
            precision=self.config.train.precision,
            clip_norm=self.config.train.clip_norm,
            seed=0,
            epoch=0,
        )
        return starts

    def _picture_seconds(self, features: CachedFeatures | None, now: Clock) -> float:
        """Duration of the evaluation of a picture."""
        evaluate = partial(
            detect,
            self.learner.detector,
            *self.val,
            precision=self.config.train.precision,
            batch_size=BATCH_SIZE[self.device.type],
            features=features,
        )
        if self.device.type == "cuda":
            evaluate()  # warm-up: loads and chooses the kernels
        started = now()
        evaluate()
        return (now() - started) / len(self.val[0].pictures)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run with this number of torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
