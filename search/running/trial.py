"""What a worker runs: one trial. Each of its exceptions becomes an end that the study knows."""

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
    OutOfMemoryError,
    has_lost_accelerator,
    is_accelerator_error,
    release_memory,
)
from trainer.training.engine import DivergedError
from trainer.training.fit import fit
from trainer.training.phase_cache import PhaseCache

from ..space.locations import PHASES, trial_folder
from ..study.disk import is_disk_full
from ..study.record import End, to_json
from .trial_resources import USABLE_GPU_MEMORY
from .watchdog import Watchdog

STACKS_FILE = "stacks.txt"
"""In a trial's folder: the stacks of a worker's threads when it hung, or the error of its GPU."""
ENDS: dict[type[Exception], End] = {
    DivergedError: End.DIVERGED,
    OutOfMemoryError: End.OUT_OF_MEMORY,
}
"""The exceptions that a configuration itself causes, and how its trial ends. Others are bugs, or
the machine's."""


def run_trial(
    config: dict[str, Any],
    *,
    data: Splits,
    folder: Path,
    threads: int,
    gpu_fraction: float,
    hang_timeout: float,
    disk_cap: float,
) -> dict[str, str]:
    """Train one trial in its folder, and report each epoch to Tune.

    To Tune, only the death of this process is a failure. The process ends itself where the
    Watchdog finds that it hangs, and when its GPU takes no more work: the next trial would get the
    same process.

    Args:
        config: What the searcher handed out: the trial's `number`, and its `config`.
        data: The data set.
        folder: The search's folder.
        threads: How many threads to compute with.
        gpu_fraction: Fraction of a GPU that the trial gets, 0 to 1.
        hang_timeout: Seconds that a step may take.
        disk_cap: Bytes that the phase cache may take.

    Returns:
        `end` and `text`, how the trial ended; or `full_disk`, the error of a full disk.
    """
    torch.set_num_threads(threads)
    if torch.cuda.is_available() and 0 < gpu_fraction < 1:
        # a trial that takes more runs out of memory alone, without the others on its GPU
        torch.cuda.set_per_process_memory_fraction(USABLE_GPU_MEMORY * gpu_fraction)
    place = trial_folder(folder, config["number"])

    try:
        ended = _train_and_review(config, data, folder, place, hang_timeout, disk_cap)
    except BaseException as error:  # Tune raises in tune.report to end a trial that it stopped
        traceback.clear_frames(error.__traceback__)  # they keep the detector alive
        raise
    finally:
        release_memory()
    if has_lost_accelerator():
        _exit_worker(place, f"its GPU takes no more work; the trial would have ended with {ended}")
    return ended


def _train_and_review(
    config: dict[str, Any],
    data: Splits,
    folder: Path,
    place: Path,
    hang_timeout: float,
    disk_cap: float,
) -> dict[str, str]:
    """Train a trial in `place`, then review it; returns what `run_trial` returns."""
    try:
        if not folder.is_dir():  # a folder made here would not be the driver's
            raise FileNotFoundError(
                f"{os.uname().nodename} has no {folder}: mount the storage on every node"
            )
        place.mkdir(parents=True, exist_ok=True)
        with Watchdog(place / STACKS_FILE, hang_timeout) as watchdog:

            def report(epoch: EpochReport) -> bool:
                watchdog.pause()  # the driver may take its time
                tune.report({"report": to_json(epoch)})
                return True  # a trial that the driver stops ends within tune.report

            trial = TrainConfig.model_validate(config["config"])
            cache = phase_cache(folder, disk_cap)
            result = fit(trial, data, place, report, cache, on_step=watchdog.step)
            review(trial, data.val, place, result.detections, watchdog.step)
    except tuple(ENDS) as error:
        return {"end": ENDS[type(error)], "text": str(error)}
    except Exception as error:
        if is_accelerator_error(error):
            _exit_worker(place, traceback.format_exc())
        if is_disk_full(error):
            return {"full_disk": str(error)}
        return {"end": End.ERROR, "text": traceback.format_exc()}  # a bug ends this trial alone
    return {"end": End.FINISHED}


def _exit_worker(place: Path, why: str) -> NoReturn:
    """End this process: it cannot get its GPU back."""
    with (place / STACKS_FILE).open("a") as stacks:
        stacks.write(f"{why}\n")
    os._exit(1)


def phase_cache(folder: Path, cap: float) -> PhaseCache:
    """The finished phases of the search in `folder`, and those of the searches next to it.

    `cap` is the most bytes that its phases may take.
    """
    phases = folder / PHASES
    others = tuple(sorted(p for p in folder.parent.glob(f"*/{PHASES}") if p != phases))
    return PhaseCache(phases, others, cap)
