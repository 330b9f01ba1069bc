"""A trial from start to end: the head phase, then each unfreeze phase, one report an epoch."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import TrainConfig
from ..data.batches import batches, num_workers_for, steps
from ..data.dataset import Splits
from ..epoch_report import EpochReport
from ..evaluation.coco_metrics import Metrics, score
from ..evaluation.detections import BATCH_SIZE, detect
from ..machine_errors import as_out_of_memory
from ..model.checkpoint import (
    BEST,
    LAST,
    DamagedFileError,
    load,
    load_last,
    save,
    save_last,
    tensors_digest,
)
from ..phases import Phase, plan
from ..precision import default_device as default_device
from . import lr_schedule, optim
from .engine import DivergedError, TrainingSummary, train_one_epoch
from .frozen_features import CachedFeatures
from .phase_cache import PhaseCache, phase_digests
from .resource_usage import ResourceMeter
from .trial_data import TrialData
from .trial_state import TrialState, build_learner, with_resolved_precision


@dataclass(frozen=True)
class Result:
    """The result of a trial."""

    best_map: float
    """Highest AP on val; 0 before the first epoch."""
    best_epoch: int
    """Number of the epoch with the highest AP, from 1; 0 before the first epoch."""
    epochs: int
    """Number of finished epochs, forked ones included."""
    detections: NDArray[np.void] | None = field(default=None, compare=False, repr=False)
    """Detections on val at the best epoch, see `coco_metrics.pack`. None if that epoch is forked,
    or was run by another process."""


def fit(
    config: TrainConfig,
    data: Splits,
    folder: Path,
    report: Callable[[EpochReport], bool],
    reuse: PhaseCache | None = None,
    *,
    on_step: Callable[[], None] = lambda: None,
) -> Result:
    """Train one trial.

    Continues from the checkpoint in `folder`, or else from equal phases in `reuse`. Their epochs
    are reported again first.

    Args:
        config: Model and training settings.
        data: The train and val splits.
        folder: Folder of the checkpoints `last.pt` and `best.pt`, written before each report.
        report: Called after each epoch; False ends the trial early.
        reuse: Finished phases of other trials, which this trial adds to.
        on_step: Called at every step of training and evaluation.

    Raises InputError if the config does not fit its model, DivergedError, or OutOfMemoryError.
    """
    device = default_device()
    with as_out_of_memory(), num_workers_for(device) as num_workers, ExitStack() as at_end:
        # 1. Build the detector and plan the phases.
        config = with_resolved_precision(config)
        state, phases, keys = _start(config, data, device)
        at_end.callback(state.learner.detector.cuda_graphs.drop)
        # 2. Continue from this trial's checkpoint, or from equal phases of another trial.
        _resume_or_fork(state, keys, folder, reuse)
        if not state.trial_environment:
            reuse = None  # begun in another environment: no other trial would get the same bits
        # 3. Open the data.
        trial_data = TrialData.open(config, data, num_workers, on_step)
        # 4. Report the epochs that are already finished.
        if not all(report(past) for past in state.reports):
            return _result(state)
        # 5. Run the other epochs: train, evaluate, write checkpoints, publish, report.
        for phase, key in zip(phases, keys, strict=True):
            _publish_missed_phase(state, phase, key, folder, reuse)
            for epoch in range(max(phase.first_epoch, state.epoch), phase.end):
                _run_epoch(state, trial_data, phase, epoch, on_step)
                _save_checkpoints(state, phase, folder)
                _publish_phase(state, phase, key, folder, reuse)
                if not report(state.reports[-1]):
                    return _result(state)
        _require_a_step(state, phases, len(data.train.pictures))
    return _result(state)


def _start(
    config: TrainConfig, data: Splits, device: torch.device
) -> tuple[TrialState, list[Phase], list[str]]:
    """The state before the first epoch, and the phases with their keys in the phase cache."""
    learner = build_learner(config, len(data.categories), device)
    phases = plan(config.train, len(learner.detector.stages))
    start = tensors_digest(learner.detector)
    keys = phase_digests(config, phases, data.digest, start, device)
    return TrialState.start(learner), phases, keys


def _resume_or_fork(
    state: TrialState, keys: list[str], folder: Path, reuse: PhaseCache | None
) -> None:
    """Continue from this trial's checkpoint, else from the latest phase that another finished."""
    checkpoint = load_last(folder)
    if checkpoint is None and reuse:
        forks = (reuse.fork(key, folder) for key in reversed(keys))
        checkpoint = next((fork for fork in forks if fork is not None), None)
    if checkpoint is not None:
        state.restore(checkpoint)


def _run_epoch(
    state: TrialState, data: TrialData, phase: Phase, epoch: int, on_step: Callable[[], None]
) -> None:
    """Train one epoch, evaluate it on val, and add its report to the state."""
    # 1. Open the cached features of the frozen stages, if any.
    on_step()
    features = data.frozen_features(state.learner.detector, phase, on_step)
    # 2. Apply the freeze state and train.
    started, meter = time.monotonic(), ResourceMeter()
    state.learner.set_freeze_state(phase)
    summary = _train(state, data, phase, epoch, features.get("train"), on_step)
    trained = time.monotonic()
    # 3. Evaluate on val.
    detections, metrics = _evaluate(state, data, features.get("val"), on_step)
    ended = time.monotonic()
    # 4. Report.
    report = EpochReport(
        epoch=epoch + 1,
        phase=phase.name,
        depth=phase.depth,
        unfreeze_epoch=max(0, epoch + 1 - data.config.train.head.epochs),
        map=metrics["map"],
        map_50=metrics["map_50"],
        map_75=metrics["map_75"],
        best_map=max([metrics["map"], *(r.map for r in state.reports)]),
        losses=summary.losses,
        skipped=summary.skipped,
        environment=state.current_environment,
        groups=optim.report_groups(state.learner.optimizer),
        seconds=ended - started,
        images_per_second=len(data.splits.train.pictures) / (trained - started),
        forked=False,
        images_from_cache=sum(cached.count for cached in features.values()),
        system=meter.read(),
    )
    state.add(report, detections)


def _train(
    state: TrialState,
    data: TrialData,
    phase: Phase,
    epoch: int,
    features: CachedFeatures | None,
    on_step: Callable[[], None],
) -> TrainingSummary:
    train, learner = data.config.train, state.learner
    epoch_steps = steps(len(data.splits.train.pictures), phase.batch_size)
    first = (epoch - phase.first_epoch) * epoch_steps

    def set_step(step: int) -> None:
        on_step()
        lr_schedule.set_step(
            learner.optimizer, phase, train.warmup_epochs, first + step, epoch_steps
        )

    def average(step: int) -> None:
        # epochs before this one count with its steps, whatever their batch size was
        learner.average.update(optim.ema_decay(phase.ema, epoch * epoch_steps + step))

    return train_one_epoch(
        learner.detector,
        learner.optimizer,
        learner.scaler,
        batches(
            data.splits.train,
            data.train_canvases,
            batch_size=phase.batch_size,
            augment=train.augment,
            seed=train.seed,
            epoch=epoch,
            features=features,
            num_workers=data.num_workers,
        ),
        set_step=set_step,
        after_step=average,
        precision=train.precision,
        clip_norm=train.clip_norm,
        seed=train.seed,
        epoch=epoch,
    )


def _evaluate(
    state: TrialState,
    data: TrialData,
    features: CachedFeatures | None,
    on_step: Callable[[], None],
) -> tuple[list[dict[str, Any]], Metrics]:
    """Detections on val, and their AP; with averaged weights, if they are averaged."""
    detector = state.learner.detector
    with state.learner.average.in_place_of_weights():
        detections = detect(
            detector,
            data.splits.val,
            data.val_canvases,
            precision=data.config.train.precision,
            batch_size=BATCH_SIZE[detector.mean.device.type],
            features=features,
            on_step=on_step,
        )
    return detections, score(data.truth, detections, data.config.model.detections)


def _save_checkpoints(state: TrialState, phase: Phase, folder: Path) -> None:
    """Write `best.pt` if the last epoch is the best one, then `last.pt`."""
    checkpoint = state.checkpoint(phase.depth)
    if state.best is state.reports[-1]:
        best = {
            "model": checkpoint["model"] | checkpoint["average"],  # as it was evaluated
            "pretrained": checkpoint["pretrained"],
            "report": checkpoint["reports"][-1],
        }
        save(best, folder / BEST)
    save_last(checkpoint, folder)


def _publish_phase(
    state: TrialState, phase: Phase, key: str, folder: Path, reuse: PhaseCache | None
) -> None:
    """Store a phase for other trials, if its last epoch is finished."""
    if reuse and state.epoch == phase.end:
        reuse.publish(key, folder)


def _publish_missed_phase(
    state: TrialState, phase: Phase, key: str, folder: Path, reuse: PhaseCache | None
) -> None:
    """Store a finished phase whose worker was killed before it stored it."""
    is_finished = state.epoch == phase.end
    if reuse and is_finished and not reuse.has(key) and _checkpoints_match(state, folder):
        reuse.publish(key, folder)


def _checkpoints_match(state: TrialState, folder: Path) -> bool:
    """Whether both checkpoints belong to this state: a worker may die between writing the two."""
    try:
        last, best = load(folder / LAST), load(folder / BEST)
    except (OSError, DamagedFileError):
        return False
    epoch = state.best.epoch if state.best else 0
    return len(last["reports"]) == state.epoch and best["report"]["epoch"] == epoch


def _require_a_step(state: TrialState, phases: list[Phase], pictures: int) -> None:
    """Raise DivergedError if every step was skipped, so that the weights are the initial ones."""
    if all(
        report.skipped == steps(pictures, phase.batch_size)
        for phase in phases
        for report in state.reports[phase.first_epoch : phase.end]
    ):
        raise DivergedError("no step was taken: in fp16 every gradient was infinite")


def _result(state: TrialState) -> Result:
    best = state.best
    return Result(
        best.map if best else 0.0, best.epoch if best else 0, state.epoch, state.detections
    )
