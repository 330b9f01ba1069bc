"""What watches the trials: MLflow, the progress display, the retention of checkpoints."""

import logging
from collections.abc import Callable
from typing import Any

from ray import tune

from ...reporting.progress import Progress
from ...study.study import Study
from ...tracking.tracking import MlflowTracking, NoTracking
from .signals import answer_sigint

log = logging.getLogger(__name__)


class Watchers(tune.Callback):
    """Tells MLflow and the progress display about each trial's news; none can stop the search.

    Args:
        tracking: Mirrors the study to MLflow.
        progress: What the user sees.
        retention: Deletes checkpoints that nobody needs; called after each ended trial.
    """

    def __init__(
        self,
        tracking: MlflowTracking | NoTracking,
        progress: Progress,
        retention: Callable[[], None],
    ) -> None:
        self._tracking = tracking
        self._progress = progress
        self._retention = retention
        self._complaints: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts at the start; these stay here

    def setup(self, *_: Any, **__: Any) -> None:
        """Have Ctrl+C answered at once: the handler that Tune has just set says nothing."""
        answer_sigint(
            lambda: self._progress.say(
                "stopping the trials (up to half a minute); the same command continues"
            )
        )

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A worker has started a trial."""
        self._publish(trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """A worker has reported an epoch."""
        self._publish(trial)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has ended."""
        self._publish(trial, ended=True)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A worker was lost."""
        self._publish(trial, ended=True)

    def _publish(self, trial: Any, ended: bool = False) -> None:
        number = int(trial.config["number"])
        self._tracking.wake(number)
        try:
            self._progress.update(number)
        except Exception:  # such as a closed terminal: watching must not stop the work
            log.debug("progress failed", exc_info=True)
        if ended:
            self._tracking.wake(None)  # the search's run: its best trial and its table
            self._delete_checkpoints()

    def _delete_checkpoints(self) -> None:
        try:
            self._retention()
        except Exception as error:  # such as a full disk
            if str(error) not in self._complaints:
                log.warning("checkpoints that are not needed stay (%s)", error)
            self._complaints.add(str(error))

    def close(self, study: Study, timeout: float) -> bool:
        """Bring all of MLflow's rows up to date; returns whether that was done in `timeout` s."""
        self._tracking.wake(None)
        for number in study.records:
            self._tracking.wake(number)
        return self._tracking.close(timeout)
