"""The winner's export, and its figures, measured in a fresh process as a user would."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer.config import BadInput
from trainer.data.dataset import Splits
from trainer.export.bundle import export, read_metrics, write_metrics, write_pictures
from trainer.export.card import write_card
from trainer.model.checkpoint import BEST, Damaged, load

from ..ranking.gain import describe_gain
from ..ranking.results import Row, config_of, identity, is_of, rank
from ..reporting.progress import Progress
from ..space.config import SearchConfig, trial_folder
from ..study.study import Study, TrialRecord

log = logging.getLogger(__name__)


def export_winner(
    config: SearchConfig, data: Splits, study: Study, best: Row, progress: Progress
) -> dict[str, Any]:
    """Write `winner/` and measure it, unless it holds this very checkpoint already; what it says of
    the gain is brought up to date.

    Raises BadInput where no checkpoint of the winner is there.
    """
    out = config.folder / "winner"
    metrics = _known(out)
    gain = {"gain": describe_gain(config, rank(config, study.records.values()), best)}
    if is_of(metrics, best):
        if gain.items() <= metrics.items():
            return metrics
        write_metrics(out, gain)
        write_card(out, config.name)
        return metrics | gain
    run, epoch = _source(config, best)
    of = {"trial": run.number, "epoch": epoch}
    progress.say(f"exporting trial {run.number} and measuring it in a fresh process")
    fresh = config.folder / ".winner"
    shutil.rmtree(fresh, ignore_errors=True)
    trial_config = config_of(config, run, study.get("precision"))
    checkpoint = trial_folder(config.folder, run.number) / BEST
    export(checkpoint, trial_config, data.categories, data.digest, fresh)
    pictured = data.test or data.val
    write_metrics(fresh, {"of": of, "for": identity(best), "pictured": pictured.name, **gain})
    splits = ["val"]
    if data.test:
        splits.append("test")
        looks = max(study.get("looks", 0), _looks(out))
        study.set("looks", looks + 1)  # before: a look that is cut short was one
        write_metrics(fresh, {"test": {"looks": looks}})
    _measure(fresh, config.folder / "search.yaml", splits)
    metrics = read_metrics(fresh)
    write_pictures(fresh, pictured)
    write_card(fresh, config.name)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    return metrics


def _source(config: SearchConfig, best: Row) -> tuple[TrialRecord, int]:
    """The best run of a configuration of which a checkpoint is there, and its epoch."""
    for run in best.by_map:
        checkpoint = trial_folder(config.folder, run.number) / BEST
        try:
            epoch: int = load(checkpoint)["report"]["epoch"]
        except (FileNotFoundError, Damaged):
            continue
        if run.best and epoch != run.best.epoch:  # its last epochs were trained again, elsewhere
            log.warning(
                "%s is of epoch %d, while the best that trial %d reported is epoch %d: exported is "
                "what is there",
                checkpoint,
                epoch,
                run.number,
                run.best.epoch,
            )
        return run, epoch
    raise BadInput(
        [
            f"{trial_folder(config.folder, best.record.number)} has no whole {BEST}: was it "
            "deleted, or written on a node with another storage?"
        ]
    )


def _looks(export: Path) -> int:
    """How often test was looked at with an earlier winner, evaluations by hand included."""
    return int(_known(export).get("test", {}).get("looks", 0))


def _known(export: Path) -> dict[str, Any]:
    """Figures of an earlier winner; damaged ones are as none, for all is measured anew."""
    try:
        return read_metrics(export)
    except BadInput:
        return {}


def _measure(model: Path, data: Path, splits: list[str]) -> None:
    """Run `unfreeze evaluate` as a user would; it keeps its figures beside the model."""
    line = [
        sys.executable,
        "-P",
        "-m",
        "search.commands.cli",
        "evaluate",
        str(model),
        str(data),
        "--json",
    ]
    line += [f"--split={split}" for split in splits]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {model} failed:\n{done.stderr[-2000:]}")
