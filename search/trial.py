"""What a worker runs: one trial, whose every exception becomes an end the study knows."""

import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.engine import Diverged, OutOfMemory
from trainer.fit import EpochReport, fit
from trainer.phase_cache import PhaseCache
from trainer.precision import resolve

from .config import trial_folder
from .study import End, to_json


def run_trial(
    config: dict[str, Any], *, data: Splits, folder: Path, threads: int
) -> dict[str, str]:
    """Train trial `config["number"]` in its own folder under `folder`, reporting to Tune.

    Returns how it ended. Only the death of this process is a failure to Tune.
    """
    torch.set_num_threads(threads)

    def report(epoch: EpochReport) -> bool:
        tune.report({"report": to_json(epoch)})
        return True  # when the driver stops a trial, Tune ends it within tune.report

    try:
        fit(
            TrainConfig.model_validate(config["config"]),
            data,
            trial_folder(folder, config["number"]),
            report,
            PhaseCache(folder / "phases"),
        )
    except Diverged as error:
        return {"end": End.DIVERGED, "text": str(error)}
    except OutOfMemory as error:
        return {"end": End.OUT_OF_MEMORY, "text": str(error)}
    except Exception:  # a bug, or the user's disk: it ends this trial, told in full
        return {"end": End.ERROR, "text": traceback.format_exc()}
    return {"end": End.FINISHED}


def resolve_precision(wanted: str) -> str:
    """`trainer.precision.resolve` where a trial will run."""
    return resolve(wanted)
