"""The study as a Tune scheduler: records each report, then lets ASHA judge the trial."""

import logging
import time
from collections import Counter
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from trainer.epoch_report import EpochReport

from ...ranking.asha import stops
from ...space.config import Asha
from ...study.disk import is_disk_full
from ...study.environment_changes import describe_change
from ...study.record import End, from_json
from ...study.study import Study
from .lost_workers import killed_for_memory, largest_worker, last_error, lost_with_node

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""A worker that takes longer than this to start is given up."""
ENDED = (Trial.TERMINATED, Trial.ERROR)
STOP, CONTINUE = str(TrialScheduler.STOP), str(TrialScheduler.CONTINUE)


class StudyScheduler(FIFOScheduler):
    """Records the reports of workers in the study, and stops trials as ASHA decides."""

    def __init__(self, study: Study, asha: Asha | None, epochs: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._asha = asha
        self._epochs = epochs
        self._live: list[Trial] = []
        self._pending_since: dict[str, float] = {}
        """When each pending trial became pending, by Tune's id."""
        self._unexplained_kills: Counter[int] = Counter()
        """Times that Ray killed a trial for memory before its first report, by trial number."""

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its parts at the start; the study is the state and stays here

    def on_trial_add(self, tune_controller: object, trial: Trial) -> None:
        """Take note of a trial that the searcher handed out."""
        self._live.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The trial that gets the next free worker: the first new one, else the first pending one.

        For a trial that was pending before, a worker is already starting. Tune would end that
        worker if the trial got the free one, so there would be ever fewer workers.

        Also ends the trials that Tune gave up without a call: the worker that they were to reuse
        could not be used again.
        """
        given_up = [trial for trial in self._live if trial.status == Trial.ERROR]
        # Tune's default looks at every trial of the search, many times a second.
        self._live = [trial for trial in self._live if trial.status not in ENDED]
        for trial in given_up:
            self.on_trial_error(tune_controller, trial)
            tune_controller.search_alg.on_trial_complete(trial.trial_id, error=True)
        pending = [trial for trial in self._live if trial.status == Trial.PENDING]
        before, now = self._pending_since, time.monotonic()
        self._pending_since = {t.trial_id: before.get(t.trial_id, now) for t in pending}
        overdue = [t for t in pending if now - self._pending_since[t.trial_id] > START_SECONDS]
        new = [trial for trial in pending if trial.trial_id not in before]
        return next(iter((*overdue, *new, *pending)), None)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """Record why a worker was lost.

        A trial that used up the memory would do so again, so it ends as out of memory. A lost node
        is not the fault of its trial.
        """
        self._live = [other for other in self._live if other is not trial]
        number, error = int(trial.config["number"]), last_error(trial)
        if killed_for_memory(error):
            if self._used_the_memory(trial, number, error):
                text = "Ray ended its worker: the node was running out of memory"
                self._study.end(number, End.OUT_OF_MEMORY, text)
        elif lost_with_node(error):
            self._study.node_lost.add(number)

    def _used_the_memory(self, trial: Trial, number: int, error: str) -> bool:
        """Whether this trial used up the memory.

        Ray kills several workers at once, and lists the processes that use the most memory. A
        trial that has not reported yet is tried once more.
        """
        largest, pid = largest_worker(error), (trial.last_result or {}).get("pid")
        if largest is None:
            return True
        if pid is not None:
            return int(pid) == largest
        self._unexplained_kills[number] += 1
        return self._unexplained_kills[number] > 1

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, str]) -> str:
        """Record what a worker reports, and decide whether its trial continues."""
        number = int(trial.config["number"])
        if "end" in result:
            self._study.end(number, End(result["end"]), result.get("text", ""))
            return STOP
        if "full_disk" in result:  # not the trial's fault: it continues when there is space
            self._study.full_disk = result["full_disk"]
            return STOP
        if "report" not in result:
            return CONTINUE
        try:
            return STOP if self.take(number, from_json(result["report"])) else CONTINUE
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._study.full_disk = str(error)
            return STOP

    def take(self, number: int, report: EpochReport) -> bool:
        """Record a report once; returns whether ASHA stops, or has stopped, its trial."""
        record = self._study.records[number]
        if report.epoch not in record.reports:
            if change := describe_change(record.last, report):
                log.warning("trial %d continues %s", number, change)
            stop = (
                self._asha is not None
                and record.confirms is None  # a confirming trial always runs to its end
                and stops(self._asha, self._epochs, record, report, self._study.records.values())
            )
            self._study.record(number, report, stop)
        if record.stopped_at is None:
            return False
        self._study.end(number, End.PRUNED)
        return True
