"""What a worker runs: one trial, whose every exception becomes an end the study knows."""

import os
import traceback
from pathlib import Path
from typing import Any, NoReturn

import torch
from ray import tune

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.epoch_report import EpochReport
from trainer.evaluation.review import review
from trainer.machine_errors import (
    OutOfMemory,
    give_memory_back,
    has_lost_accelerator,
    is_of_accelerator,
)
from trainer.training.engine import Diverged
from trainer.training.fit import fit
from trainer.training.phase_cache import PhaseCache

from ..space.locations import trial_folder
from ..study.disk import is_full
from ..study.record import End, to_json
from .resources import FILLED
from .watchdog import Watchdog

STACKS = "stacks.txt"
"""In a trial's folder: what every thread of a worker did when it was found hanging, or the error
of its GPU."""


def run_trial(
    config: dict[str, Any],
    *,
    data: Splits,
    folder: Path,
    threads: int,
    gpu_share: float,
    hang_timeout: float,
    disk_cap: float,
) -> dict[str, str]:
    """Train trial `config["number"]` in its own folder under `folder`, reporting to Tune.

    Returns how it ended, or that the disk is full. Only the death of this process is a failure to
    Tune; it also dies, by its own hand, where the Watchdog finds it hanging, or when its GPU takes
    no more work: the next trial, which it would be given, gets another process.
    """
    torch.set_num_threads(threads)
    if torch.cuda.is_available() and 0 < gpu_share < 1:  # who takes more is out of memory alone
        torch.cuda.set_per_process_memory_fraction(FILLED * gpu_share)
    own = trial_folder(folder, config["number"])

    try:
        ended = _trained(config, data, folder, own, hang_timeout, disk_cap)
    except BaseException as error:  # Tune ends a trial that it stopped from within tune.report
        traceback.clear_frames(error.__traceback__)  # which hold its detector
        raise
    finally:
        give_memory_back()
    if has_lost_accelerator():
        _leave(own, f"its GPU takes no more work; the trial's end would have been {ended}")
    return ended


def _trained(
    config: dict[str, Any],
    data: Splits,
    folder: Path,
    own: Path,
    hang_timeout: float,
    disk_cap: float,
) -> dict[str, str]:
    """Train and review; what `run_trial` returns."""
    try:
        if not folder.is_dir():  # made here, it would be another than the driver's
            raise FileNotFoundError(
                f"{os.uname().nodename} has no {folder}: mount the storage on every node"
            )
        own.mkdir(parents=True, exist_ok=True)
        with Watchdog(own / STACKS, hang_timeout) as watchdog:

            def report(epoch: EpochReport) -> bool:
                watchdog.pause()  # the driver may take its time
                tune.report({"report": to_json(epoch)})
                return True  # when the driver stops a trial, Tune ends it within tune.report

            trial = TrainConfig.model_validate(config["config"])
            cache = phase_cache(folder, disk_cap)
            result = fit(trial, data, own, report, cache, on_step=watchdog.step)
            review(trial, data.val, own, result.found, watchdog.step)
    except Diverged as error:
        return {"end": End.DIVERGED, "text": str(error)}
    except OutOfMemory as error:
        return {"end": End.OUT_OF_MEMORY, "text": str(error)}
    except Exception as error:
        if is_of_accelerator(error):
            _leave(own, traceback.format_exc())
        if is_full(error):
            return {"full_disk": str(error)}
        return {"end": End.ERROR, "text": traceback.format_exc()}  # a bug ends this trial
    return {"end": End.FINISHED}


def _leave(own: Path, why: str) -> NoReturn:
    """End this process: none gets its GPU back."""
    with (own / STACKS).open("a") as stacks:
        stacks.write(f"{why}\n")
    os._exit(1)


def phase_cache(folder: Path, cap: float) -> PhaseCache:
    """The finished phases of the search in this folder, and of those beside it."""
    own = folder / "phases"
    others = tuple(sorted(place for place in folder.parent.glob("*/phases") if place != own))
    return PhaseCache(own, others, cap)
