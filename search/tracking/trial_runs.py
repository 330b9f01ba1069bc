"""MLflow's runs of trials: children of the search's run, with a row an epoch and a review."""

import json
import time
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag

from trainer.evaluation.review import CLASSES, CURVES, MISSES, PREDICTIONS, REVIEW

from ..ranking.contenders import BASELINE
from ..space.locations import trial_folder
from ..space.space import values_by_field
from ..study.environment_changes import describe_changes
from ..study.record import End, TrialRecord
from ..study.search_state import SearchState
from .description import flat_metrics
from .search_run import SearchRun, milliseconds

STATUS = {
    End.FINISHED: "FINISHED",
    End.PRUNED: "KILLED",
    End.DIVERGED: "FAILED",
    End.OUT_OF_MEMORY: "FAILED",
    End.ERROR: "FAILED",
    End.LOST: "FAILED",
}
"""MLflow's status of a trial's run, by how the trial ended."""
BATCH = 900
"""Metrics per request; MLflow takes 1000 metrics, params and tags in all."""
PAGE = 1000
"""Runs per page of MLflow's answer."""
LONGEST = 4000
"""Characters of the longest tag; the end of a longer text is kept."""


class TrialRuns:
    """Writes the runs of trials. Exceptions of MLflow propagate."""

    def __init__(self, parent: SearchRun) -> None:
        self._parent = parent
        self._search = parent.search
        self._runs: dict[int, str] = {}
        """Ids of the trials' runs, by the trial's number."""
        self._earlier: dict[int, Run] | None = None
        """Runs that an earlier driver made, or a request without an answer, by the number."""
        self._epochs: dict[int, set[int]] = {}
        """Epochs whose rows MLflow has, by the number."""
        self._with_params: set[int] = set()
        """Trials whose params MLflow has."""
        self._states: dict[int, str] = {}
        """The state of each trial that MLflow has."""
        self._with_files: set[int] = set()
        """Trials whose review MLflow has."""

    def fill(self, number: int) -> bool:
        """Write what MLflow lacks of a trial, but for its files.

        Returns:
            Whether its files are to be logged now.
        """
        record = self._search.study.records[number]
        if record.started is None:
            return False
        state = self._state(record)  # before the rows: a later state wakes the tracking again
        run = self._run(record)
        self._write(run, record, state)
        if self._states.get(number) != state:
            self._set_status(run, record, state)
        return record.end is not None and number not in self._with_files

    def _write(self, run: str, record: TrialRecord, state: str) -> None:
        """Write rows, params and tags that are new."""
        number = record.number
        reports = [r for e, r in sorted(record.reports.items()) if e not in self._epochs[number]]
        rows = [
            Metric(name, value, milliseconds(record.times[report.epoch]), report.epoch)
            for report in reports
            for name, value in flat_metrics(report).items()
        ]
        params = []
        if number not in self._with_params:
            # by field: MLflow takes no name with the branch of a conditional dimension in it
            params = [Param(k, str(v)) for k, v in values_by_field(record.parameters).items()]
        ends = self._states.get(number) != state
        tags = [RunTag("unfreeze.end", state)] if ends else []
        if ends and record.text:
            tags.append(RunTag("unfreeze.text", record.text[-LONGEST:]))
        if (changes := "; ".join(describe_changes(record))) and (rows or ends):
            tags.append(RunTag("unfreeze.went_on", changes[-LONGEST:]))
        client = self._parent.client
        for start in range(BATCH, len(rows), BATCH):
            client.log_batch(run, metrics=rows[start : start + BATCH])
        if rows or params or tags:
            client.log_batch(run, metrics=rows[:BATCH], params=params, tags=tags)
        self._epochs[number] |= {report.epoch for report in reports}
        self._with_params.add(number)

    def _state(self, record: TrialRecord) -> str:
        if record.end is not None:
            return record.end.value
        running = self._search.study.state == SearchState.RUNNING
        return "running" if running else "interrupted"

    def _set_status(self, run: str, record: TrialRecord, state: str) -> None:
        client = self._parent.client
        if state == "running":
            client.update_run(run, status="RUNNING")
        elif record.end is None:
            client.set_terminated(run, "KILLED")
        else:
            ended = milliseconds(record.ended or time.time())
            client.set_terminated(run, STATUS[record.end], ended)
        self._states[record.number] = state

    def fill_files(self, number: int) -> None:
        """Log the review of a finished trial; others have none."""
        run, folder = self._runs[number], trial_folder(self._search.folder, number) / REVIEW
        if folder.is_dir():
            client = self._parent.client
            sizes = {file.path: file.file_size for file in client.list_artifacts(run)}
            for file in (folder / name for name in (PREDICTIONS, MISSES, CURVES, CLASSES)):
                # a file that a killed driver left incomplete has another size
                if file.is_file() and sizes.get(file.name, -1) not in (None, file.stat().st_size):
                    client.log_artifact(run, str(file))
            # MLflow shows this json as a table, and not as text
            tables = [{"path": CLASSES, "type": "table"}]
            client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(tables))
        self._with_files.add(number)

    def _run(self, record: TrialRecord) -> str:
        """The id of a trial's run, which is made where MLflow has none."""
        number = record.number
        if number not in self._runs:
            if self._earlier is None:
                self._earlier = self._earlier_runs()
            run = self._earlier.get(number)
            if run is None:
                run = self._create(record)
                self._epochs[number] = set()
            else:
                self._read_earlier(run, record)
            self._runs[number] = run.info.run_id
        return self._runs[number]

    def _earlier_runs(self) -> dict[int, Run]:
        """The runs of this search's trials in MLflow, by number.

        Other runs that people nest in the search's run have no such number.
        """
        clause = f"tags.`mlflow.parentRunId` = '{self._parent.id}'"
        earlier: list[Run] = []
        page: str | None = ""
        while page is not None:
            runs = self._parent.client.search_runs(
                [self._parent.experiment], clause, max_results=PAGE, page_token=page or None
            )
            earlier += runs
            page = runs.token or None
        numbers = ((run.data.tags.get("unfreeze.trial", ""), run) for run in earlier)
        return {int(number): run for number, run in numbers if number.isdecimal()}

    def _create(self, record: TrialRecord) -> Run:
        try:
            return self._parent.client.create_run(
                self._parent.experiment,
                start_time=milliseconds(record.started or time.time()),
                run_name=run_name(record),
                tags={
                    "mlflow.parentRunId": self._parent.id,
                    "unfreeze.trial": str(record.number),
                    "unfreeze.origin": record.origin,
                },
            )
        except Exception:
            self._earlier = None  # the server may have made the run all the same: look again
            raise

    def _read_earlier(self, run: Run, record: TrialRecord) -> None:
        """Take over what MLflow has of a trial from an earlier driver."""
        number = record.number
        if record.end is not None and _has_ended(run, record.end):
            self._epochs[number] = set(record.reports)
            self._with_params.add(number)
            self._states[number] = record.end.value
        else:
            history = self._parent.client.get_metric_history(run.info.run_id, "val/map")
            self._epochs[number] = {row.step for row in history}


def _has_ended(run: Run, end: End) -> bool:
    """Whether MLflow has this end of a trial, which is written after all else."""
    value: str | None = run.data.tags.get("unfreeze.end")
    return value == end.value and run.info.status == STATUS[end]


def run_name(record: TrialRecord) -> str:
    """The name of a trial's run: `#07 depth 3 lr 1.2e-3`."""
    values = values_by_field(record.parameters)
    # where neither is searched, the first two fields that are
    main = [name for name in ("train.unfreeze.depth", "train.unfreeze.lr") if name in values]
    parts = [
        f"{name.rpartition('.')[2]} {_short(values[name])}" for name in main or list(values)[:2]
    ]
    shown = {"sampled": "", BASELINE: "(baseline)"}
    origin = [shown.get(record.origin, f"({record.origin})")]
    return " ".join(filter(None, [f"#{record.number:02}", *parts, *origin]))


def _short(value: Any) -> str:
    """A float with two digits: `1.2e-3`, `0.9`."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"
