"""Finished phases, stored under a digest of everything they depend on, for other trials to fork."""

import contextlib
import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import torch

from ..config import TrainConfig
from ..model.checkpoint import BEST, LAST, Checkpoint, DamagedFileError, load, save
from ..model.heads import DEFAULT_DETECTIONS
from ..phases import Phase
from .environment import environment


def phase_settings(config: TrainConfig, phases: list[Phase]) -> str:
    """All settings that a run of phases depends on. Trials with equal keys can share the phases.

    Settings that act only in later phases are not part of it.
    """
    train = config.train
    model = config.model.model_dump(mode="json")
    if model["detections"] == DEFAULT_DETECTIONS:  # the key of a default config has no such field
        del model["detections"]
    return json.dumps(
        {
            "model": model,
            "optimizer": [train.optimizer, train.momentum, train.warmup_epochs, train.clip_norm],
            "augment": train.augment,
            "seed": train.seed,
            "precision": train.precision,
            "phases": [asdict(phase) for phase in phases],
        },
        sort_keys=True,
    )


def phase_digests(
    config: TrainConfig, phases: list[Phase], data: str, start: str, device: torch.device
) -> list[str]:
    """For each phase the identity of the state at its end, on this kind of machine.

    Args:
        config: The config, with its precision resolved.
        phases: All phases of the trial, in order.
        data: Digest of the data set.
        start: Digest of all tensors before the first phase. The place that the weights came from
            does not count.
        device: The device that the trial trains on.
    """
    runs = [phases[: i + 1] for i in range(len(phases))]
    return [_digest(config, run, data, start, device) for run in runs]


def _digest(
    config: TrainConfig, phases: list[Phase], data: str, start: str, device: torch.device
) -> str:
    model = config.model.model_copy(update={"weights": "none"})
    key = phase_settings(config.model_copy(update={"model": model}), phases)
    parts = [key, data, start, *environment(device).values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class PhaseCache:
    """A folder of finished phases, one subfolder each, and further folders to read from."""

    folder: Path
    """The folder that this search writes to."""
    others: tuple[Path, ...] = ()
    """Folders of other searches, which are only read."""
    cap: float = inf
    """Maximum size in bytes. The least recently used phases are deleted first."""

    def publish(self, key: str, trial: Path) -> None:
        """Store the checkpoints of a trial at the end of a phase: both of them, or none."""
        place = self.folder / key
        if self.has(key):
            return
        part = self.folder / f".{key}.{platform.node()}.{os.getpid()}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for name in (LAST, BEST):
                _link(trial / name, part / name)
            part.rename(place)
        except OSError:
            if not place.is_dir():  # if it is there, another trial was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self._evict(place)

    def fork(self, key: str, trial: Path) -> Checkpoint | None:
        """Start a trial's folder from a finished phase.

        Returns:
            The checkpoint, its reports marked as forked; None if no intact phase has this key.
        """
        for folder in (self.folder, *self.others):
            place = folder / key
            checkpoint = self._load(place) if self._is_folder(place) else None
            if checkpoint is None:
                continue
            checkpoint["reports"] = [{**past, "forked": True} for past in checkpoint["reports"]]
            trial.mkdir(parents=True, exist_ok=True)
            try:
                _link(place / BEST, trial / BEST)
            except FileNotFoundError:  # another trial has evicted it
                continue
            save(checkpoint, trial / LAST)  # written last: it makes the trial's folder valid
            return checkpoint
        return None

    def _load(self, place: Path) -> Checkpoint | None:
        """The last checkpoint of a phase; None if one of its two files is not readable."""
        with contextlib.suppress(OSError):  # a folder of another search may be read-only
            os.utime(place)  # used now
        try:
            checkpoint = load(place / LAST)
            load(place / BEST)
            return checkpoint
        except (FileNotFoundError, DamagedFileError):
            if place.parent == self.folder:
                shutil.rmtree(place, ignore_errors=True)
            return None
        except OSError:  # a passing fault of the disk: the phase stays
            return None

    def has(self, key: str) -> bool:
        """Whether a phase is in the folder that this search writes to."""
        return self._is_folder(self.folder / key)

    @staticmethod
    def _is_folder(place: Path) -> bool:
        try:
            return place.is_dir()
        except OSError:  # a folder of another search may be unreachable
            return False

    def _evict(self, newest: Path) -> None:
        """Delete the least recently used phases beyond the cap, but never the newest one."""
        last_used: dict[Path, float] = {}
        for place in self.folder.glob("[!.]*"):
            with contextlib.suppress(OSError):  # another trial has evicted it
                last_used[place] = place.stat().st_mtime
        free = self.cap - _size(newest)
        for place in sorted(last_used.keys() - {newest}, key=lambda place: -last_used[place]):
            free -= _size(place)
            if free < 0:
                shutil.rmtree(place, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Hard-link a checkpoint, which is never modified in place; copy it across disks."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy(source, target)


def _size(place: Path) -> int:
    with contextlib.suppress(OSError):
        return sum((place / name).stat().st_size for name in (LAST, BEST))
    return 0
