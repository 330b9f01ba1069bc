"""The study as a Tune scheduler: a report is recorded, then judged by ASHA."""

import logging
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from trainer.epoch_report import EpochReport

from ..ranking.asha import stops
from ..space.config import Asha
from ..study.disk import is_full
from ..study.environment_changes import difference
from ..study.record import End, from_json
from ..study.study import Study

log = logging.getLogger(__name__)

NODE_LOST = ("node has died", "node was terminated", "owner has died", "unavailable", "preempted")
"""Ray's words for a worker that went with its node; for one that died alone they are `its worker
process has died`."""
MEMORY_USER = re.compile(r"^(\d+)\s+[\d.]+\s+ray::ImplicitFunc", re.MULTILINE)
"""The first trial in Ray's list of the processes that hold the most memory: its process id."""
START_SECONDS = 60.0
"""A worker that takes longer to start will not."""
ENDED = (Trial.TERMINATED, Trial.ERROR)


class StudyScheduler(FIFOScheduler):
    """Writes what workers report into the study, and stops trials as ASHA says."""

    def __init__(self, study: Study, asha: Asha | None, epochs: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._asha = asha
        self._epochs = epochs
        self._live: list[Trial] = []
        self._since: dict[str, float] = {}
        """Since when each trial waits that does, by Tune's id."""
        self._suspects: Counter[int] = Counter()
        """Times that Ray ended a trial for memory before its worker was known."""

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its parts at the start; the study is the state, and stays here

    def on_trial_add(self, tune_controller: object, trial: Trial) -> None:
        self._live.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The trial for the next worker, a free one if there is any: the first that is new.

        Those that waited before have a worker on its way each, which Tune would end to give them
        the free one, so that there were ever fewer. Also fails trials that Tune gave up without
        telling anybody, since the worker they were to take over could not be used again.
        """
        given_up = [trial for trial in self._live if trial.status == Trial.ERROR]
        # Tune's own way looks at every trial there ever was, many times a second
        self._live = [trial for trial in self._live if trial.status not in ENDED]
        for trial in given_up:
            self.on_trial_error(tune_controller, trial)
            tune_controller.search_alg.on_trial_complete(trial.trial_id, error=True)
        waiting = [trial for trial in self._live if trial.status == Trial.PENDING]
        before, now = self._since, time.monotonic()
        self._since = {trial.trial_id: before.get(trial.trial_id, now) for trial in waiting}
        late = [t for t in waiting if now - self._since[t.trial_id] > START_SECONDS]
        new = [trial for trial in waiting if trial.trial_id not in before]
        return next(iter((*late, *new, *waiting)), None)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """A worker died. Memory would be as short the next time; a node is another's fault."""
        self._live = [other for other in self._live if other is not trial]
        number, error = int(trial.config["number"]), _last_error(trial)
        if "running low on memory" in error or "memory pressure" in error:
            if not self._took_it(trial, number, error):
                return  # it dies a worker's death, and is tried again
            text = "Ray ended its worker: the node was running out of memory"
            self._study.end(number, End.OUT_OF_MEMORY, text)
        elif any(words in error for words in NODE_LOST):
            self._study.node_lost.add(number)

    def _took_it(self, trial: Trial, number: int, error: str) -> bool:
        """Whether a trial itself took the memory: Ray ends several workers at once, and lists the
        processes that held the most. One that has not reported yet has a second try."""
        largest = MEMORY_USER.search(error)
        own = (trial.last_result or {}).get("pid")
        if largest is None or own is not None:
            return largest is None or str(own) == largest[1]
        self._suspects[number] += 1
        return self._suspects[number] > 1

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, str]) -> str:
        number = int(trial.config["number"])
        if "end" in result:
            self._study.end(number, End(result["end"]), result.get("text", ""))
            return str(TrialScheduler.STOP)
        if "full_disk" in result:  # says nothing of the trial, which goes on when there is room
            self._study.full_disk = result["full_disk"]
            return str(TrialScheduler.STOP)
        if "report" not in result:
            return str(TrialScheduler.CONTINUE)
        try:
            stopped = self.take(number, from_json(result["report"]))
        except OSError as error:
            if not is_full(error):
                raise
            self._study.full_disk = str(error)
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE)

    def take(self, number: int, report: EpochReport) -> bool:
        """Record a report, once, and say whether ASHA stops, or has stopped, its trial."""
        record = self._study.records[number]
        if report.epoch not in record.reports:
            if elsewhere := difference(record.last, report):
                log.warning("trial %d goes on %s", number, elsewhere)
            stop = (
                self._asha is not None
                and record.confirms is None  # runs to the end, whatever it comes to
                and stops(self._asha, self._epochs, record, report, self._study.records.values())
            )
            self._study.record(number, report, stop)
        if record.stopped_at is None:
            return False
        self._study.end(number, End.PRUNED)
        return True


def _last_error(trial: Trial) -> str:
    file = trial.error_file
    text = Path(file).read_text() if file and Path(file).is_file() else ""
    return text.rpartition("Failure # ")[2]
