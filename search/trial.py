"""What a worker runs: one trial, whose every exception becomes an end the study knows."""

import faulthandler
import os
import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.engine import Diverged, OutOfMemory
from trainer.fit import fit
from trainer.phase_cache import PhaseCache
from trainer.reports import EpochReport
from trainer.review import review

from .config import trial_folder
from .disk import is_full
from .resources import FILLED
from .study import End, to_json

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
    Tune; it also dies, by its own hand, after `hang_timeout` seconds without a step, or with the
    GPU's own errors.
    """
    torch.set_num_threads(threads)
    if torch.cuda.is_available() and 0 < gpu_share < 1:  # who takes more is out of memory alone
        torch.cuda.set_per_process_memory_fraction(FILLED * gpu_share)
    own = trial_folder(folder, config["number"])

    def report(epoch: EpochReport) -> bool:
        faulthandler.cancel_dump_traceback_later()  # the driver may take its time
        tune.report({"report": to_json(epoch)})
        return True  # when the driver stops a trial, Tune ends it within tune.report

    try:
        if not folder.is_dir():  # made here, it would be another than the driver's
            raise FileNotFoundError(
                f"{os.uname().nodename} has no {folder}: mount the storage on every node"
            )
        own.mkdir(parents=True, exist_ok=True)
        with (own / STACKS).open("a") as stacks:

            def on_step() -> None:
                faulthandler.dump_traceback_later(hang_timeout, exit=True, file=stacks)

            on_step()
            try:
                trial = TrainConfig.model_validate(config["config"])
                cache = phase_cache(folder, disk_cap)
                result = fit(trial, data, own, report, cache, on_step=on_step)
                review(trial, data.val, own, result.found, on_step)
            finally:
                faulthandler.cancel_dump_traceback_later()
    except Diverged as error:
        return {"end": End.DIVERGED, "text": str(error)}
    except OutOfMemory as error:
        return {"end": End.OUT_OF_MEMORY, "text": str(error)}
    except torch.AcceleratorError:  # no process gets its GPU back: let another one go on
        with (own / STACKS).open("a") as stacks:
            traceback.print_exc(file=stacks)
        os._exit(1)
    except Exception as error:
        if is_full(error):
            return {"full_disk": str(error)}
        return {"end": End.ERROR, "text": traceback.format_exc()}  # a bug ends this trial
    return {"end": End.FINISHED}


def phase_cache(folder: Path, cap: float) -> PhaseCache:
    """The finished phases of the search in this folder, and of those beside it."""
    own = folder / "phases"
    others = tuple(sorted(place for place in folder.parent.glob("*/phases") if place != own))
    return PhaseCache(own, others, cap)
