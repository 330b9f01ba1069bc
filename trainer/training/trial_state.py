"""The state of a trial: everything that changes while it trains, and its checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import TrainConfig
from ..epoch_report import EpochReport, read_report
from ..evaluation.detections import pack
from ..model.checkpoint import Checkpoint, load_trained_state, pretrained_digest, trained_state
from ..model.detectors import Detector, build
from ..model.freezing import set_depth
from ..phases import Phase
from ..precision import resolve_precision
from . import optim
from .environment import environment


@dataclass(frozen=True)
class Learner:
    """A detector, its optimizer, the scaler of its loss, and the average of its weights."""

    detector: Detector
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: optim.WeightAverage
    """Empty until a phase with `train.ema` begins."""

    def set_freeze_state(self, phase: Phase) -> None:
        """Freeze and unfreeze the stages as a phase demands."""
        set_depth(
            self.detector,
            self.detector.stages,
            phase.depth,
            adapt_statistics=phase.adapt_statistics,
            drop_path=phase.drop_path,
        )
        if phase.ema:
            self.average.include_trainable()


def build_learner(config: TrainConfig, classes: int, device: torch.device) -> Learner:
    """A detector before training, with all that trains it.

    Args:
        config: The config, with its precision resolved.
        classes: Number of classes.
        device: The device to train on.
    """
    torch.manual_seed(config.train.seed)  # for the initial weights
    detector = build(config.model, classes).to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
    optimizer = optim.build(detector, config.train)
    return Learner(detector, optimizer, scaler, optim.WeightAverage(detector))


def with_resolved_precision(config: TrainConfig) -> TrainConfig:
    """The config with a precision other than `auto`."""
    train = config.train.model_copy(update={"precision": resolve_precision(config.train.precision)})
    return config.model_copy(update={"train": train})


@dataclass
class TrialState:
    """Everything that changes while a trial runs. A checkpoint holds it."""

    learner: Learner
    pretrained: str
    """See `pretrained_digest`."""
    current_environment: dict[str, str]
    """The environment of this process, see `environment`."""
    trial_environment: dict[str, str]
    """The environment of all epochs; empty if the epochs ran in different ones."""
    reports: list[EpochReport] = field(default_factory=list)
    """One report for each epoch."""
    detections: NDArray[np.void] | None = None
    """Detections on val at the best epoch, see `pack`; None if this process has not run it."""

    @classmethod
    def start(cls, learner: Learner) -> "TrialState":
        """The state before the first epoch."""
        current = environment(learner.detector.mean.device)
        return cls(learner, pretrained_digest(learner.detector), current, current)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.reports)

    @property
    def best(self) -> EpochReport | None:
        """The first epoch with the highest AP on val."""
        return max(self.reports, key=lambda r: r.map, default=None)

    def add(self, report: EpochReport, detections: list[dict[str, Any]]) -> None:
        """Add a finished epoch with its detections on val."""
        self.reports.append(report)
        if self.best is report:
            self.detections = pack(detections)

    def checkpoint(self, depth: int) -> Checkpoint:
        """The state as plain values and tensors, without the frozen stages at this depth."""
        return {
            "model": trained_state(self.learner.detector, depth),
            "average": self.learner.average.state(),
            "pretrained": self.pretrained,
            "environment": self.trial_environment,
            "optimizer": self.learner.optimizer.state_dict(),
            "scaler": self.learner.scaler.state_dict(),
            "reports": [asdict(report) for report in self.reports],
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        load_trained_state(self.learner.detector, checkpoint)
        # checkpoints of earlier versions have none
        self.learner.average.load_state(checkpoint.get("average", {}))
        self.learner.optimizer.load_state_dict(checkpoint["optimizer"])
        self.learner.scaler.load_state_dict(checkpoint["scaler"])
        self.reports = [read_report(raw) for raw in checkpoint["reports"]]
        if checkpoint.get("environment") != self.trial_environment:
            self.trial_environment = {}
