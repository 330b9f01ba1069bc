"""What watches a search: MLflow, the progress shown, the disk. None of it can stop the work."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from ray import tune

from trainer.data.dataset import Splits
from trainer.data.overview import OVERVIEW, draw_overview

from .config import SearchConfig, stored, tracking_uri, write_yaml
from .progress import Progress
from .results import SearchResult, markdown, rank, winner
from .space import Space
from .study import Study
from .tracking import Description, MlflowTracking, NoTracking

log = logging.getLogger(__name__)

STATUS = {
    "running": "RUNNING",
    "done": "FINISHED",
    "out of time": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "disk full": "FAILED",
}


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
    config: SearchConfig, space: Space, study: Study, result: SearchResult | None = None
) -> MlflowTracking | NoTracking:
    uri = tracking_uri(config.tracking)
    if uri == "off":
        return NoTracking()
    return MlflowTracking(uri, study, config.name, partial(_describe, config, space, study, result))


def draw_data(config: SearchConfig, data: Splits) -> None:
    """Have the search's folder hold a picture of its data, which goes to MLflow too."""
    file = config.folder / OVERVIEW
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    try:
        if not file.is_file():
            draw_overview(splits, config.model, file)
    except Exception:  # a font, a disk: whatever stands in the way of a drawing
        log.warning("the picture of the data could not be drawn", exc_info=True)


def _describe(
    config: SearchConfig, space: Space, study: Study, result: SearchResult | None
) -> Description:
    rows = rank(config, space, list(study.records.values()))
    best = winner(rows)
    tags = {"unfreeze.state": str(study.get("state")), "unfreeze.data": str(study.get("data"))}
    metrics = {}
    if best is not None:
        tags["unfreeze.best_trial"] = str(best.record.number)
        metrics["best_map"] = best.map or 0.0
    for split in ("val", "test"):
        figures = result.metrics.get(split, {}).get("figures", {}) if result else {}
        metrics |= {f"winner/{split}_{k}": v for k, v in figures.items() if v is not None}
    return Description(
        status=STATUS.get(str(study.get("state")), "KILLED"),
        params={
            "detector": config.model.detector,
            "backbone": config.model.backbone,
            "image_size": str(config.model.image_size),
            "precision": str(study.get("precision")),
        },
        tags=tags,
        metrics=metrics,
        texts={
            "search.yaml": write_yaml(stored(config)),
            "table.md": markdown(space, rows),
        },
        files=tuple(file for file in [config.folder / OVERVIEW] if file.is_file()),
    )
