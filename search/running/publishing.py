"""What a search publishes besides its record: MLflow's runs, a picture of the data, the report.

No failure here ends a search.
"""

import logging
import subprocess
from collections.abc import Iterator
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trainer.config import Data
from trainer.data.checks.overview import OVERVIEW, draw_overview
from trainer.data.dataset import Splits

from ..ranking.gain import gain_metrics
from ..ranking.results import SearchResult
from ..reporting.formatting import markdown
from ..reporting.report import read_result, write_report
from ..reporting.verdict import verdict
from ..space.config import SearchConfig
from ..space.config_file import stored_config, write_yaml
from ..space.locations import tracking_uri
from ..study.search_state import SearchState
from ..study.study import Study
from ..tracking.description import DataInput, Description
from ..tracking.tracking import MlflowTracking, NoTracking

log = logging.getLogger(__name__)

MLFLOW_STATUS: dict[str, str] = {
    SearchState.RUNNING: "RUNNING",
    SearchState.DONE: "FINISHED",
    SearchState.OUT_OF_TIME: "FINISHED",
    SearchState.STOPPED: "FINISHED",
    SearchState.FAILED: "FAILED",
    SearchState.DISK_FULL: "FAILED",
}
"""MLflow's status of a search in each state; any other state is KILLED."""
MAX_NOTE = 7900
"""Characters of the note of a run; MLflow's tags hold a few more."""


def start_tracking(
    config: SearchConfig, data: Splits, study: Study, report: Path | None = None
) -> MlflowTracking | NoTracking:
    """Start to mirror a search to MLflow; `report` is its HTML page, if there is one yet."""
    uri = tracking_uri(config.tracking)
    if uri == "off":
        return NoTracking()
    describe = partial(_describe, config, data, study, report)
    return MlflowTracking(uri, study, config.name, config.folder, describe)


def draw_data(config: SearchConfig, data: Splits) -> None:
    """Draw the data set into the search's folder, for the user and for MLflow."""
    file = config.folder / OVERVIEW
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    try:
        if not file.is_file():
            draw_overview(splits, config.model, file)
    except Exception:  # such as a font or the disk: a search does not need the drawing
        log.warning("the picture of the data could not be drawn", exc_info=True)


def try_report(result: SearchResult, study: Study) -> Path | None:
    """Write the search's HTML page; logs a warning and returns None if that fails."""
    try:
        return write_report(result, study)
    except Exception as error:  # a search must not lose its result for a page
        log.warning("the report could not be written (%s: %s)", type(error).__name__, error)
        return None


def _describe(config: SearchConfig, data: Splits, study: Study, report: Path | None) -> Description:
    """What MLflow shows of the search now."""
    result = read_result(config, study)
    table = markdown(result.space, result.rows)
    return Description(
        status=MLFLOW_STATUS.get(result.state, "KILLED"),
        params={
            "detector": config.model.detector,
            "backbone": config.model.backbone,
            "image_size": str(config.model.image_size),
            "precision": str(study.precision),
        },
        tags=_tags(result, study, table),
        metrics=_metrics(result),
        texts={"search.yaml": write_yaml(stored_config(config)), "table.md": table},
        files=tuple(file for file in (report, config.folder / OVERVIEW) if file and file.is_file()),
        inputs=tuple(_inputs(config, data)),
    )


def _tags(result: SearchResult, study: Study, table: str) -> dict[str, str]:
    lines = "\n".join(f"- {line}" for line in verdict(result))
    tags = {
        "unfreeze.state": result.state,
        "unfreeze.data": str(study.data_digest),
        **code_version(),
        "mlflow.source.name": "unfreeze",
        "mlflow.source.type": "LOCAL",
        # the top of the run's page; table.md has the complete table
        "mlflow.note.content": f"{lines}\n\n{table}"[:MAX_NOTE],
    }
    if result.winner is not None:
        tags["unfreeze.best_trial"] = str(result.winner.record.number)
        tags["unfreeze.best_map"] = f"{result.winner.score or 0.0:.4f}"
    return tags


def _metrics(result: SearchResult) -> dict[str, float]:
    metrics = {
        "epochs/trained": float(result.costs.epochs_run),
        "epochs/forked": float(result.costs.epochs_forked),
        "epochs/stopped": float(result.costs.epochs_not_run),
        "epochs/pictures_read": float(result.costs.images_from_cache),
    }
    if result.winner is not None:
        metrics["best_map"] = result.winner.score or 0.0
        metrics |= gain_metrics(result.rows, result.winner)
    for split in ("val", "test"):
        measured = result.metrics.get(split, {})
        at_detections = measured.get("at_detections", {})
        figures = measured.get("figures", {}) | {
            f"{name}_at_detections": value for name, value in at_detections.items()
        }
        metrics |= {f"winner/{split}_{k}": v for k, v in figures.items() if v is not None}
    return metrics


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
    """MLflow tags that name the code: its version, and its commit in a git checkout."""
    try:
        tags = {"unfreeze.version": version("unfreeze")}
    except PackageNotFoundError:  # run from its folder
        tags = {"unfreeze.version": "not installed"}
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        head = subprocess.run(command, capture_output=True, text=True, check=False)
        if head.returncode == 0:
            tags["mlflow.source.git.commit"] = head.stdout.strip()
    return tags
