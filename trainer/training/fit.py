"""A trial from start to end: head phase, then each unfreeze phase, one report an epoch."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import TrainConfig
from ..data.batches import batches, makers_for, steps
from ..data.canvas import cache_folder, open_store
from ..data.dataset import Splits
from ..epoch_report import EpochReport, read_report
from ..evaluation.coco_metrics import BATCH_SIZE, Truth, detect, pack, score
from ..machine_errors import memory_errors
from ..model.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    Damaged,
    load,
    load_last,
    load_trained_state,
    pretrained_digest,
    save,
    save_last,
    tensors_digest,
    trained_state,
)
from ..model.detectors import Detector, build
from ..model.freezing import set_depth
from ..phases import Phase, plan
from ..precision import device, resolve
from . import optim
from .engine import Diverged, Trained, train_one_epoch
from .frozen_features import KeptOutputs, keep_outputs, outputs_folder
from .phase_cache import PhaseCache, digest, environment
from .usage import Meter


@dataclass(frozen=True)
class Result:
    """How a trial came out."""

    best_map: float
    best_epoch: int
    epochs: int
    """Epochs of the trial so far, forked ones included."""
    found: NDArray[np.void] | None = field(default=None, compare=False, repr=False)
    """What was detected on val at the best epoch, see `evaluate.pack`; None where that epoch is
    another process's or was forked."""


@dataclass
class _Run:
    """All that changes while a trial runs; a checkpoint holds it."""

    detector: Detector
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    pretrained: str
    """See `pretrained_digest`."""
    here: dict[str, str]
    """See `phase_cache.environment`."""
    environment: dict[str, str]
    """Where all of its epochs ran; empty once that has changed."""
    reports: list[EpochReport] = field(default_factory=list)
    found: NDArray[np.void] | None = None
    """See Result."""

    @property
    def epoch(self) -> int:
        return len(self.reports)

    @property
    def best(self) -> EpochReport | None:
        return max(self.reports, key=lambda r: r.map, default=None)

    def checkpoint(self, depth: int) -> Checkpoint:
        return {
            "model": trained_state(self.detector, depth),
            "pretrained": self.pretrained,
            "environment": self.environment,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "reports": [asdict(report) for report in self.reports],
        }

    def result(self) -> Result:
        best = self.best
        return Result(best.map if best else 0.0, best.epoch if best else 0, self.epoch, self.found)

    def restore(self, checkpoint: Checkpoint) -> None:
        load_trained_state(self.detector, checkpoint)
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        self.reports = [read_report(raw) for raw in checkpoint["reports"]]
        if checkpoint.get("environment") != self.environment:
            self.environment = {}


def fit(
    config: TrainConfig,
    data: Splits,
    folder: Path,
    report: Callable[[EpochReport], bool],
    reuse: PhaseCache | None = None,
    *,
    on_step: Callable[[], None] = lambda: None,
) -> Result:
    """Train one trial, keeping `folder/last.pt` and `folder/best.pt`, and report each epoch.

    Goes on from `folder` where it holds a checkpoint, or from equal phases in `reuse`; the epochs
    of both are reported again first. Ends early when `report` returns False. `on_step` is called at
    every step, of training and of evaluation. Raises Diverged, OutOfMemory, or BadInput for a
    config that does not fit its model.
    """
    where = device()
    with memory_errors(), makers_for(where) as makers, ExitStack() as at_end:
        config = _with_precision(config)
        train = config.train
        run = _start(config, len(data.categories), where)
        at_end.callback(run.detector.cuda_graphs.drop)
        phases = plan(train, len(run.detector.stages))
        start = tensors_digest(run.detector)
        keys = [
            digest(config, phases[: i + 1], data.digest, start, where) for i in range(len(phases))
        ]
        _resume_or_fork(run, phases, keys, folder, reuse)
        if not run.environment:
            reuse = None  # elsewhere begun: no other trial would come to these bits
        scene = _Scene.open(config, data, makers, on_step)
        for past in run.reports:
            if not report(past):
                return run.result()

        for phase, key in zip(phases, keys, strict=True):
            _share_late(run, phase, key, folder, reuse)
            for epoch in range(max(phase.first_epoch, run.epoch), phase.end):
                on_step()
                kept = scene.keep(run.detector, phase, on_step)
                started, meter = time.monotonic(), Meter()
                set_depth(
                    run.detector,
                    run.detector.stages,
                    phase.depth,
                    adapt_statistics=phase.adapt_statistics,
                    drop_path=phase.drop_path,
                )
                trained = _train(run, config, scene, phase, epoch, kept.get("train"), on_step)
                ended_training = time.monotonic()
                found = detect(
                    run.detector,
                    data.val,
                    scene.val,
                    precision=train.precision,
                    batch_size=BATCH_SIZE[where.type],
                    outputs=kept.get("val"),
                    on_step=on_step,
                )
                metrics = score(scene.truth, found, config.model.detections)
                ended = time.monotonic()
                run.reports.append(
                    EpochReport(
                        epoch=epoch + 1,
                        phase=phase.name,
                        depth=phase.depth,
                        unfreeze_epoch=max(0, epoch + 1 - train.head.epochs),
                        map=metrics["map"],
                        map_50=metrics["map_50"],
                        map_75=metrics["map_75"],
                        best_map=max([metrics["map"], *(r.map for r in run.reports)]),
                        losses=trained.losses,
                        skipped=trained.skipped,
                        environment=run.here,
                        groups=optim.report_groups(run.optimizer),
                        seconds=ended - started,
                        images_per_second=len(data.train.pictures) / (ended_training - started),
                        forked=False,
                        read=sum(kept[name].count for name in kept),
                        system=meter.read(),
                    )
                )
                if run.best is run.reports[-1]:
                    run.found = pack(found)
                _keep(run, phase, config, folder)
                _share(run, phase, key, folder, reuse)
                if not report(run.reports[-1]):
                    return run.result()
        _require_a_step(run, phases, len(data.train.pictures))
    return run.result()


@dataclass(frozen=True)
class _Scene:
    """Canvases, kept outputs and truth, opened once a trial, and who makes batches of them."""

    config: TrainConfig
    data: Splits
    train: NDArray[np.uint8]
    val: NDArray[np.uint8]
    truth: Truth
    makers: int
    """See `batches`."""
    kept: dict[int, dict[str, KeptOutputs]] = field(default_factory=dict)
    """By depth and split."""

    @classmethod
    def open(
        cls, config: TrainConfig, data: Splits, makers: int, on_step: Callable[[], None]
    ) -> "_Scene":
        folder = cache_folder() / "canvases"
        size = config.model.image_size
        return cls(
            config,
            data,
            open_store(data.train, size, folder, on_step),
            open_store(data.val, size, folder, on_step),
            Truth(data.val),
            makers,
        )

    def keep(
        self, detector: Detector, phase: Phase, on_step: Callable[[], None]
    ) -> dict[str, KeptOutputs]:
        """Kept outputs of the stages that a phase has frozen, by split, see `keep_outputs`."""
        if phase.keep_outputs and phase.depth not in self.kept:
            self.kept[phase.depth] = keep_outputs(
                detector,
                phase.depth,
                self.config,
                [(self.data.train, self.train), (self.data.val, self.val)],
                outputs_folder(),
                on_step,
            )
        return self.kept.get(phase.depth, {}) if phase.keep_outputs else {}


def _with_precision(config: TrainConfig) -> TrainConfig:
    train = config.train.model_copy(update={"precision": resolve(config.train.precision)})
    return config.model_copy(update={"train": train})


def _start(config: TrainConfig, classes: int, where: torch.device) -> _Run:
    torch.manual_seed(config.train.seed)  # of the new weights
    detector = build(config.model, classes).to(where)
    scaler = torch.amp.GradScaler(where.type, enabled=config.train.precision == "fp16")
    optimizer = optim.build(detector, config.train)
    here = environment(where)
    return _Run(detector, optimizer, scaler, pretrained_digest(detector), here, here)


def _resume_or_fork(
    run: _Run, phases: list[Phase], keys: list[str], folder: Path, reuse: PhaseCache | None
) -> None:
    checkpoint = load_last(folder)
    if checkpoint is not None:
        run.restore(checkpoint)
        return
    for key in reversed(keys) if reuse else ():
        assert reuse is not None
        checkpoint = reuse.fork(key, folder)
        if checkpoint is not None:
            run.restore(checkpoint)
            return


def _share(run: _Run, phase: Phase, key: str, folder: Path, reuse: PhaseCache | None) -> None:
    """File a phase for other trials, once it is over."""
    if reuse and run.epoch == phase.end:
        reuse.file_away(key, folder)


def _share_late(run: _Run, phase: Phase, key: str, folder: Path, reuse: PhaseCache | None) -> None:
    """File a phase whose worker was killed when it was over and not yet filed."""
    is_over = run.epoch == phase.end
    if reuse and is_over and not reuse.has(key) and _holds(folder, run):
        reuse.file_away(key, folder)


def _holds(folder: Path, run: _Run) -> bool:
    """Whether both checkpoints are of where the run stands: it may have ended between two files."""
    try:
        last, best = load(folder / LAST), load(folder / BEST)
    except (OSError, Damaged):
        return False
    epoch = run.best.epoch if run.best else 0
    return len(last["reports"]) == run.epoch and best["report"]["epoch"] == epoch


def _train(
    run: _Run,
    config: TrainConfig,
    scene: _Scene,
    phase: Phase,
    epoch: int,
    outputs: KeptOutputs | None,
    on_step: Callable[[], None],
) -> Trained:
    train = config.train
    epoch_steps = steps(len(scene.data.train.pictures), phase.batch_size)
    first = (epoch - phase.first_epoch) * epoch_steps

    def set_step(step: int) -> None:
        on_step()
        optim.set_step(run.optimizer, phase, train.warmup_epochs, first + step, epoch_steps)

    return train_one_epoch(
        run.detector,
        run.optimizer,
        run.scaler,
        batches(
            scene.data.train,
            scene.train,
            batch_size=phase.batch_size,
            augment=train.augment,
            seed=train.seed,
            epoch=epoch,
            outputs=outputs,
            makers=scene.makers,
        ),
        set_step=set_step,
        precision=train.precision,
        clip_norm=train.clip_norm,
        seed=train.seed,
        epoch=epoch,
    )


def _require_a_step(run: _Run, phases: list[Phase], pictures: int) -> None:
    """Raise Diverged where no step was taken: what is left is what it began with."""
    if all(
        report.skipped == steps(pictures, phase.batch_size)
        for phase in phases
        for report in run.reports[phase.first_epoch : phase.end]
    ):
        raise Diverged("no step was taken: in fp16 every gradient was infinite")


def _keep(run: _Run, phase: Phase, config: TrainConfig, folder: Path) -> None:
    """Write `best.pt` where this epoch is the best, then `last.pt`."""
    checkpoint = run.checkpoint(phase.depth)
    if run.best is run.reports[-1]:
        weights = {name: checkpoint[name] for name in ("model", "pretrained")}
        save(weights | {"report": checkpoint["reports"][-1]}, folder / BEST)
    save_last(checkpoint, folder)
