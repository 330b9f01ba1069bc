"""The winner's export, and its figures, measured in a fresh process as a user would."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer.config import InputError
from trainer.data.dataset import Splits
from trainer.export.bundle import export, read_metrics, write_metrics, write_pictures
from trainer.export.card import write_card
from trainer.model.checkpoint import BEST, DamagedFileError, load

from ..ranking.gain_sentence import describe_gain
from ..ranking.ranking import rank
from ..ranking.row import Row, checkpoint_of, metrics_belong_to
from ..reporting.progress import Progress
from ..space.config import SearchConfig
from ..space.locations import WINNER, trial_folder
from ..study.record import TrialRecord
from ..study.study import Study
from .trial_config import config_of

log = logging.getLogger(__name__)


def export_winner(
    config: SearchConfig, data: Splits, study: Study, best: Row, progress: Progress
) -> dict[str, Any]:
    """Write `winner/` and measure it, unless it holds this very checkpoint already.

    What it says of the gain is brought up to date either way.

    Returns:
        The content of `winner/metrics.json`.

    Raises:
        InputError: No checkpoint of the winner exists.
    """
    out = config.folder / WINNER
    metrics = _earlier_metrics(out)
    gain = {"gain": describe_gain(config, rank(config, study.records.values()), best)}
    if metrics_belong_to(metrics, best):
        if gain.items() <= metrics.items():
            return metrics
        write_metrics(out, gain)
        write_card(out, config.name)
        return metrics | gain
    run, epoch = _checkpoint(config, best)
    fresh = config.folder / ".winner"
    shutil.rmtree(fresh, ignore_errors=True)
    with progress.step(f"exporting trial {run.number}"):
        _export_run(config, data, study, run, fresh)
    pictured = data.test or data.val
    of = {"trial": run.number, "epoch": epoch}
    write_metrics(fresh, {"of": of, "for": checkpoint_of(best), "pictured": pictured.name, **gain})
    splits = ["val"]
    if data.test:
        splits.append("test")
        _count_look(study, out, fresh)
    with progress.step(f"measuring it on {' and '.join(splits)}, in a fresh process"):
        _measure(fresh, config.folder / "search.yaml", splits)
    metrics = read_metrics(fresh)
    with progress.step("drawing what it detects"):
        write_pictures(fresh, pictured)
    write_card(fresh, config.name)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    return metrics


def _checkpoint(config: SearchConfig, best: Row) -> tuple[TrialRecord, int]:
    """The best run of a configuration whose checkpoint exists, and the checkpoint's epoch."""
    for run in best.by_map:
        checkpoint = trial_folder(config.folder, run.number) / BEST
        try:
            epoch: int = load(checkpoint)["report"]["epoch"]
        except (FileNotFoundError, DamagedFileError):
            continue
        if run.best and epoch != run.best.epoch:  # its last epochs were repeated on another node
            log.warning(
                "%s is of epoch %d, but the best that trial %d reported is epoch %d: the "
                "checkpoint is exported as it is",
                checkpoint,
                epoch,
                run.number,
                run.best.epoch,
            )
        return run, epoch
    raise InputError(
        [
            f"{trial_folder(config.folder, best.record.number)} has no intact {BEST}: was it "
            "deleted, or written on a node with another storage?"
        ]
    )


def _export_run(
    config: SearchConfig, data: Splits, study: Study, run: TrialRecord, out: Path
) -> None:
    trial_config = config_of(config, run, study.precision)
    checkpoint = trial_folder(config.folder, run.number) / BEST
    export(checkpoint, trial_config, data.categories, data.digest, out)


def _count_look(study: Study, earlier: Path, fresh: Path) -> None:
    """Count an evaluation on test before it starts, so that an interrupted one counts too.

    `unfreeze evaluate` counts in the earlier export; counting continues from the larger number.
    """
    looks = max(study.test_looks, int(_earlier_metrics(earlier).get("test", {}).get("looks", 0)))
    study.test_looks = looks + 1
    write_metrics(fresh, {"test": {"looks": looks}})


def _earlier_metrics(export: Path) -> dict[str, Any]:
    """Figures of an earlier winner; empty if they are damaged, since all is measured anew."""
    try:
        return read_metrics(export)
    except InputError:
        return {}


def _measure(model: Path, data: Path, splits: list[str]) -> None:
    """Run `unfreeze evaluate` as a user would; it stores the figures in the model's folder."""
    command = [sys.executable, "-P", "-m", "search.commands.cli", "evaluate"]
    command += [str(model), str(data), "--json", *(f"--split={split}" for split in splits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {model} failed:\n{done.stderr[-2000:]}")
