"""What watches a search: MLflow, the progress shown, the disk. None of it can stop the work."""

import contextlib
import logging
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ray import tune

from trainer.config import Data
from trainer.data.checks.overview import OVERVIEW, draw_overview
from trainer.data.dataset import Splits

from ..ranking.gain import gain_metrics
from ..ranking.results import SearchResult
from ..reporting.formatting import markdown
from ..reporting.progress import Progress
from ..reporting.report import read_result, write_report
from ..reporting.verdict import verdict
from ..space.config import SearchConfig
from ..space.config_file import stored, write_yaml
from ..space.locations import tracking_uri
from ..study.facts import SearchState
from ..study.study import Study
from ..tracking.description import DataInput, Description
from ..tracking.tracking import MlflowTracking, NoTracking

log = logging.getLogger(__name__)

STATUS: dict[str, str] = {
    SearchState.RUNNING: "RUNNING",
    SearchState.DONE: "FINISHED",
    SearchState.OUT_OF_TIME: "FINISHED",
    SearchState.STOPPED: "FINISHED",
    SearchState.FAILED: "FAILED",
    SearchState.DISK_FULL: "FAILED",
}
NOTE = 7900
"""Characters that a tag of MLflow's holds, and a bit less."""


class Watchers(tune.Callback):
    """Tells tracking and progress that a trial has news, and has the disk tidied after one; none
    of them can stop the search."""

    def __init__(
        self,
        tracking: MlflowTracking | NoTracking,
        progress: Progress,
        tidy: Callable[[], None],
    ) -> None:
        self._tracking = tracking
        self._progress = progress
        self._tidy = tidy

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts at the start; these stay here

    def setup(self, *_: Any, **__: Any) -> None:
        """Have Ctrl+C answered at once. Tune has just set its own handler, which says nothing to us
        and has trials stop where they are."""
        ends = signal.getsignal(signal.SIGINT)

        def answer(number: int, frame: Any) -> None:
            with contextlib.suppress(Exception):  # a closed terminal
                self._progress.say(
                    "stopping its trials, which may take half a minute; the same line continues"
                )
            if callable(ends):
                ends(number, frame)

        with contextlib.suppress(ValueError):  # not in the main thread: its owner minds signals
            signal.signal(signal.SIGINT, answer)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._tell(trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self._tell(trial)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._tell(trial, ended=True)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._tell(trial, ended=True)

    def _tell(self, trial: Any, ended: bool = False) -> None:
        number = int(trial.config["number"])
        try:
            self._tracking.wake(number)
            self._progress.update(number)
            if ended:
                self._tracking.wake(None)  # the best so far, and the table
                self._tidy()
        except Exception:  # a closed terminal, say: watching must not stop the work
            log.debug("progress failed", exc_info=True)

    def close(self, study: Study, patience: float) -> bool:
        """Have every row looked at once more; whether MLflow took them within these seconds."""
        self._tracking.wake(None)
        for number in study.records:
            self._tracking.wake(number)
        return self._tracking.close(patience)


def start_tracking(
    config: SearchConfig, data: Splits, study: Study, report: Path | None = None
) -> MlflowTracking | NoTracking:
    """Begin to mirror a search; `report` is its page, where it has one."""
    uri = tracking_uri(config.tracking)
    if uri == "off":
        return NoTracking()
    describe = partial(_describe, config, data, study, report)
    return MlflowTracking(uri, study, config.name, config.folder, describe)


def draw_data(config: SearchConfig, data: Splits) -> None:
    """Have the search's folder hold a picture of its data, which goes to MLflow too."""
    file = config.folder / OVERVIEW
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    try:
        if not file.is_file():
            draw_overview(splits, config.model, file)
    except Exception:  # a font, a disk: whatever stands in the way of a drawing
        log.warning("the picture of the data could not be drawn", exc_info=True)


def try_report(result: SearchResult, study: Study) -> Path | None:
    """Write the search's page; None, and a warning, where that fails."""
    try:
        return write_report(result, study)
    except Exception as error:  # a page must not lose a search its result
        log.warning("the report could not be written (%s: %s)", type(error).__name__, error)
        return None


def _describe(config: SearchConfig, data: Splits, study: Study, report: Path | None) -> Description:
    result = read_result(config, study)
    best, table = result.winner, markdown(result.space, result.rows)
    said = "\n".join(f"- {line}" for line in verdict(result))
    tags = {
        "unfreeze.state": result.state,
        "unfreeze.data": study.data_digest,
        **code_version(),
        "mlflow.source.name": "unfreeze",
        "mlflow.source.type": "LOCAL",
        # what the run's page begins with; the table is whole in table.md
        "mlflow.note.content": f"{said}\n\n{table}"[:NOTE],
    }
    metrics = {
        "epochs/trained": float(result.costs.run),
        "epochs/forked": float(result.costs.forked),
        "epochs/stopped": float(result.costs.stopped),
        "epochs/pictures_read": float(result.costs.read),
    }
    if best is not None:
        tags["unfreeze.best_trial"] = str(best.record.number)
        tags["unfreeze.best_map"] = f"{best.score or 0.0:.4f}"
        metrics["best_map"] = best.score or 0.0
        metrics |= gain_metrics(result.rows, best)
    for split in ("val", "test"):
        figures = result.metrics.get(split, {}).get("figures", {})
        more = result.metrics.get(split, {}).get("at_detections", {})
        figures = figures | {f"{name}_at_detections": value for name, value in more.items()}
        metrics |= {f"winner/{split}_{k}": v for k, v in figures.items() if v is not None}
    return Description(
        status=STATUS.get(result.state, "KILLED"),
        params={
            "detector": config.model.detector,
            "backbone": config.model.backbone,
            "image_size": str(config.model.image_size),
            "precision": study.precision,
        },
        tags=tags,
        metrics=metrics,
        texts={"search.yaml": write_yaml(stored(config)), "table.md": table},
        files=tuple(file for file in (report, config.folder / OVERVIEW) if file and file.is_file()),
        inputs=tuple(_inputs(config, data)),
    )


def _inputs(config: SearchConfig, data: Splits) -> Iterator[DataInput]:
    name = config.data if isinstance(config.data, str) else config.name
    for split in filter(None, (data.train, data.val, data.test)):
        file = getattr(config.data, split.name) if isinstance(config.data, Data) else None
        yield DataInput(
            split=split.name,
            name=f"{name} {split.name}",
            digest=split.digest,
            source=str(file or name),
            pictures=len(split.pictures),
            boxes=sum(len(picture.boxes) for picture in split.pictures),
        )


@cache
def code_version() -> dict[str, str]:
    """Tags that say which code runs: the version, and in a git checkout its commit."""
    try:
        tags = {"unfreeze.version": version("unfreeze")}
    except PackageNotFoundError:  # run from its folder
        tags = {"unfreeze.version": "not installed"}
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        line = ["git", "-C", str(root), "rev-parse", "HEAD"]
        found = subprocess.run(line, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            tags["mlflow.source.git.commit"] = found.stdout.strip()
    return tags
