"""The end of a search: its ranking, its winner's export, its report, and MLflow's last rows."""

import logging
from typing import Any

from trainer.data.dataset import Splits

from ..exports.winner import export_winner
from ..ranking.costs import costs
from ..ranking.ranking import rank, winner
from ..ranking.results import SearchResult
from ..reporting.progress import Progress
from ..space.config import SearchConfig
from ..space.locations import WINNER, tracking_uri
from ..space.space import Space
from ..study.search_state import SearchState
from ..study.study import Study
from ..tracking.registry import register
from ..tracking.tracking import describe_error
from .publishing import start_tracking, try_report

log = logging.getLogger(__name__)

CONCLUDED = {
    SearchState.DONE,
    SearchState.OUT_OF_TIME,
    SearchState.STOPPED,
    SearchState.FAILED,
}
"""States in which a search has a winner. In any other it is to be continued first."""
TRACKING_SECONDS, TRACKING_SECONDS_PER_TRIAL = 60.0, 0.25
"""How long an ended search waits for MLflow to take the last rows: a minute, and more for each
trial, since every row is compared once more."""


def tracking_timeout(study: Study) -> float:
    """Seconds to wait for MLflow to have all rows of a search."""
    return TRACKING_SECONDS + TRACKING_SECONDS_PER_TRIAL * len(study.records)


def conclude(
    config: SearchConfig,
    space: Space,
    data: Splits,
    study: Study,
    progress: Progress,
    reason: str = "",
) -> SearchResult:
    """Export the winner, and publish the result of the search.

    `reason` says why the search stopped early, if it did.
    """
    rows = rank(config, study.records.values())
    best = winner(rows)
    state = study.state or "not begun"
    metrics: dict[str, Any] = {}
    if best is not None and state in CONCLUDED:
        metrics = export_winner(config, data, study, best, progress)
        study.winner = {"trial": best.record.number, "metrics": metrics}
    result = SearchResult(config, space, rows, best, metrics, costs(config, study), state, reason)
    with progress.step("writing the report"):
        report = try_report(result, study)
    tracking = start_tracking(config, data, study, report)
    with progress.step("writing the last rows to MLflow"):
        complete = tracking.close(tracking_timeout(study))
    if tracking.lacks:
        log.warning("%s", tracking.lacks)
    if complete and metrics:
        _register(config, data, study, metrics, progress)
    return result


def _register(
    config: SearchConfig, data: Splits, study: Study, metrics: dict[str, Any], progress: Progress
) -> None:
    """Add the winner to MLflow's model registry, if the configuration asks for it."""
    uri = tracking_uri(config.tracking)
    if uri == "off" or not config.register_model:
        return
    winner = config.folder / WINNER
    try:
        with progress.step("adding it to MLflow's registry, as ONNX"):
            line = register(uri, config.name, study.id, winner, metrics, data.val.pictures)
        progress.say(f"in MLflow's registry: {line}")
    except Exception as error:  # ours, or whatever a server, a disk or a network can cause
        log.warning(
            "MLflow did not get the model (%s); the same command again registers it",
            describe_error(error),
        )
