"""The study as a Tune scheduler: a report is recorded, then judged by ASHA."""

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from .asha import stops
from .config import Asha
from .study import End, Study, from_json


class StudyScheduler(FIFOScheduler):
    """Writes what workers report into the study, and stops trials as ASHA says."""

    def __init__(self, study: Study, asha: Asha | None, epochs: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._asha = asha
        self._epochs = epochs

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its parts at the start; the study is the state, and stays here

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, str]) -> str:
        number = int(trial.config["number"])
        if "end" in result:
            self._study.end(number, End(result["end"]), result.get("text", ""))
            return str(TrialScheduler.STOP)
        if "report" not in result:
            return str(TrialScheduler.CONTINUE)
        report = from_json(result["report"])
        record = self._study.records[number]
        if report.epoch not in record.reports:
            stop = self._asha is not None and stops(
                self._asha, self._epochs, number, report, self._study.records.values()
            )
            self._study.record(number, report, stop)
        if record.stopped_at is not None:
            self._study.end(number, End.PRUNED)
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)
