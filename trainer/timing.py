"""How long epochs will take: a few steps, timed."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from . import optim
from .config import TrainConfig
from .data.batches import batches, steps
from .data.canvas import letterbox
from .data.dataset import Split, Splits
from .engine import train_one_epoch
from .evaluate import BATCH_SIZE, detect
from .model.detectors import build
from .model.freezing import set_depth
from .phases import Phase, plan
from .precision import device, resolve

TIMED = 2
"""Steps that are timed, after one that warms up."""


@dataclass(frozen=True)
class Timing:
    """Seconds an epoch, training and evaluation together."""

    head: float
    unfrozen: float


def time_epochs(config: TrainConfig, data: Splits, threads: int) -> Timing:
    """Time a few steps of the head phase and of the deepest phase, on pictures of the data.

    Writes nothing. Raises what `fit` raises.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _time_epochs(config, data)
    finally:
        torch.set_num_threads(before)


def _time_epochs(config: TrainConfig, data: Splits) -> Timing:
    train = config.train.model_copy(update={"precision": resolve(config.train.precision)})
    config = config.model_copy(update={"train": train})
    where = device()
    torch.manual_seed(train.seed)
    detector = build(config.model, len(data.categories)).to(where)
    optimizer = optim.build(detector, train)
    scaler = torch.amp.GradScaler(where.type, enabled=train.precision == "fp16")

    def epoch(phase: Phase) -> float:
        set_depth(detector, detector.stages, phase.depth, adapt_statistics=phase.adapt_statistics)
        few = _first(data.train, phase.batch_size * (TIMED + 1))
        canvases = _canvases(few, config.model.image_size)
        started: list[float] = []

        def set_step(step: int) -> None:
            started.append(time.monotonic())
            optim.set_step(optimizer, phase, 0, 0, 1)

        made = batches(
            few, canvases, batch_size=phase.batch_size, augment=train.augment, seed=0, epoch=0
        )
        train_one_epoch(
            detector,
            optimizer,
            scaler,
            made,
            set_step=set_step,
            precision=train.precision,
            clip_norm=train.clip_norm,
            seed=0,
            epoch=0,
        )
        ended = time.monotonic()
        warm = started[1:] or started  # the first step also warms up
        a_step = (ended - warm[0]) / len(warm)
        return a_step * steps(len(data.train.pictures), phase.batch_size)

    phases = plan(train, len(detector.stages))
    head, unfrozen = epoch(phases[0]), epoch(phases[-1])
    few = _first(data.val, 8)
    canvases = _canvases(few, config.model.image_size)
    started = time.monotonic()
    size = BATCH_SIZE[where.type]
    detect(detector, few, canvases, precision=train.precision, batch_size=size)
    evaluation = (time.monotonic() - started) * len(data.val.pictures) / len(few.pictures)
    return Timing(head + evaluation, unfrozen + evaluation)


def _first(split: Split, count: int) -> Split:
    return Split(split.name, split.pictures[:count], split.categories)


def _canvases(split: Split, size: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.stack([letterbox(picture, size) for picture in split.pictures])
