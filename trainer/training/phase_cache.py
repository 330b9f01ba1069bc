"""Finished phases, filed under a digest of everything they depend on, for other trials to fork."""

import contextlib
import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from math import inf
from pathlib import Path

import torch

from ..config import TrainConfig
from ..model.checkpoint import BEST, LAST, Checkpoint, Damaged, load, save
from ..model.heads import DETECTIONS
from ..phases import Phase


def phase_key(config: TrainConfig, phases: list[Phase]) -> str:
    """What a run of phases depends on as far as the config says: equal for trials that can share
    it. Settings that act only in later phases are not in it."""
    train = config.train
    model = config.model.model_dump(mode="json")
    if model["detections"] == DETECTIONS:  # as in phases from before there was a choice
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


def digest(
    config: TrainConfig, phases: list[Phase], data: str, start: str, where: torch.device
) -> str:
    """Identity of the state after these phases on this kind of machine, with this code.

    `data` is the digest of the data set; `config` has its precision resolved; `start` is the
    digest of all tensors before the first phase: it counts what they are, not where they lay.
    """
    model = config.model.model_copy(update={"weights": "none"})
    own = phase_key(config.model_copy(update={"model": model}), phases)
    parts = [own, data, start, *environment(where).values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def environment(where: torch.device) -> dict[str, str]:
    """What the bits of a result depend on besides its inputs, by its name: hardware, a CPU's
    threads, code."""
    packages = ("torch", "torchvision", "timm", "pillow", "numpy", "hotcoco")
    return {
        "hardware": _hardware(where),
        "threads": str(torch.get_num_threads()) if where.type == "cpu" else "",
        "code": _sources(),
        **{name: version(name) for name in packages},
    }


def _hardware(where: torch.device) -> str:
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    # what the kernels of a convolution or a matrix product are chosen by, sizes of caches too
    has = {k: v for k, v in torch.cpu.get_capabilities().items() if not k.startswith("num_")}
    content = json.dumps(has, sort_keys=True).encode()
    return f"{torch.backends.cpu.get_cpu_capability()} {hashlib.sha256(content).hexdigest()[:8]}"


@cache
def _sources() -> str:
    """Digest of this package's own code: stale phases never match."""
    total = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


@dataclass(frozen=True)
class PhaseCache:
    """A folder of finished phases, one subfolder each, and others to look into."""

    folder: Path
    others: tuple[Path, ...] = ()
    """Folders of other caches: read, never written."""
    cap: float = inf
    """Bytes to keep at most; what was not used for longest goes first."""

    def file_away(self, key: str, trial: Path) -> None:
        """Keep a trial's checkpoints as they stand at the end of a phase; whole or not at all."""
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
            if not place.is_dir():  # else another trial filed it first
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self._evict(place)

    def fork(self, key: str, trial: Path) -> Checkpoint | None:
        """Start a trial's folder from a finished phase, or None where it is not filed whole."""
        for folder in (self.folder, *self.others):
            place = folder / key
            if not self._is_there(place):
                continue
            with contextlib.suppress(OSError):  # of others it may not be ours to touch
                os.utime(place)
            try:
                checkpoint = load(place / LAST)
                load(place / BEST)
            except (FileNotFoundError, Damaged):
                if folder == self.folder:
                    shutil.rmtree(place, ignore_errors=True)
                continue
            except OSError:  # not to be read now
                continue
            checkpoint["reports"] = [{**past, "forked": True} for past in checkpoint["reports"]]
            trial.mkdir(parents=True, exist_ok=True)
            try:
                _link(place / BEST, trial / BEST)
            except FileNotFoundError:  # another trial needed the room
                continue
            save(checkpoint, trial / LAST)  # last: with it the trial's folder counts
            return checkpoint
        return None

    def has(self, key: str) -> bool:
        """Whether a phase is in this cache's own folder."""
        return self._is_there(self.folder / key)

    @staticmethod
    def _is_there(place: Path) -> bool:
        try:
            return place.is_dir()
        except OSError:  # a folder of others may be out of reach
            return False

    def _evict(self, newest: Path) -> None:
        used: dict[Path, float] = {}
        for place in self.folder.glob("[!.]*"):
            with contextlib.suppress(OSError):  # another trial evicts too
                used[place] = place.stat().st_mtime
        left = self.cap - _size(newest)
        for place in sorted(used.keys() - {newest}, key=lambda place: -used[place]):
            left -= _size(place)
            if left < 0:
                shutil.rmtree(place, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a checkpoint, which is never written to; a copy where disks differ."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy(source, target)


def _size(place: Path) -> int:
    with contextlib.suppress(OSError):
        return sum((place / name).stat().st_size for name in (LAST, BEST))
    return 0
