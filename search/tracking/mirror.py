"""What MLflow shows of a study: a run a trial, each a child of its search's run.

Rows carry the study's timestamps, so that a replay writes the same rows. Credentials are MLflow's
own affair: it reads them from the environment, and nothing here sees them.
"""

import json
import time
from collections.abc import Callable
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from trainer.evaluation.review import CLASSES, CURVES, MISSES, PREDICTIONS, REVIEW

from ..space.locations import trial_folder
from ..space.space import by_field
from ..study.environment_changes import stretches
from ..study.facts import SearchState
from ..study.record import End, TrialRecord
from ..study.study import Study
from .database import open_store
from .description import Description, flat_metrics, run_name

STATUS = {
    End.FINISHED: "FINISHED",
    End.PRUNED: "KILLED",
    End.DIVERGED: "FAILED",
    End.OUT_OF_MEMORY: "FAILED",
    End.ERROR: "FAILED",
    End.LOST: "FAILED",
}
KIND = "custom_model_development"
"""Of an experiment: MLflow shows one of training, and not of language models."""
BATCH = 900
"""Metrics a request; MLflow takes 1000 metrics, params and tags in all."""
RUNS = 1000
"""Runs a page of MLflow's answer."""


class Turn(IntEnum):
    """What is filled in, in this order: the search's run is the parent of the others, and files
    may be slow."""

    SEARCH = 0
    ROWS = 1
    FILES = 2


Item = tuple[Turn, int]
"""And the trial's number; the search's own is WHOLE."""
WHOLE = -1


class Mirror:
    """Writes into MLflow what it lacks of a study, a turn at a time; whatever MLflow raises comes
    out. `then` is told of a turn that becomes due by another.

    `describe` gives the search's params, tags and artifacts as they stand; `folder` is the
    search's, where finished trials leave their reviews.
    """

    def __init__(
        self,
        uri: str,
        study: Study,
        name: str,
        folder: Path,
        describe: Callable[[], Description],
        then: Callable[[Item], None],
    ) -> None:
        self._uri = uri
        self._study = study
        self._name = name
        self._folder = folder
        self._describe = describe
        self._then = then
        self._runs: dict[int, str] = {}
        self._earlier: dict[int, Run] | None = None
        """Runs of trials that an earlier driver made, or a request without an answer, by number."""
        self._logged: dict[int, set[int]] = {}
        self._written: dict[str, str] = {}
        self._filed: set[int] = set()
        self._parent: str | None = None

    def fill(self, item: Item) -> None:
        """Write what MLflow lacks of an item."""
        turn, number = item
        if turn is Turn.ROWS:
            self._fill_trial(number)
        elif turn is Turn.SEARCH:
            self._fill_search()
        elif number == WHOLE:
            self._file_search()
        else:
            self._file_trial(number)

    @cached_property
    def _client(self) -> MlflowClient:
        return open_store(self._uri)  # in the thread: a store that cannot be opened raises here

    def _fill_search(self) -> None:
        description = self._describe()
        client, parent = self._client, self._parent_run()
        params = {k: v for k, v in description.params.items() if self._is_new(f"param {k}", v)}
        tags = {k: v for k, v in description.tags.items() if self._is_new(f"tag {k}", v)}
        metrics = {
            k: v for k, v in description.metrics.items() if self._is_new(f"metric {k}", str(v))
        }
        now = _milliseconds(time.time())
        client.log_batch(
            parent,
            metrics=[Metric(k, v, now, 0) for k, v in metrics.items()],
            params=[Param(k, v) for k, v in params.items()],
            tags=[RunTag(k, v) for k, v in tags.items()],
        )
        if description.inputs and self._is_new("inputs", "logged"):
            client.log_inputs(parent, [one.entity() for one in description.inputs])
            self._written["inputs"] = "logged"
        self._written |= {f"metric {k}": str(v) for k, v in metrics.items()}
        self._written |= {f"param {k}": v for k, v in params.items()}
        self._written |= {f"tag {k}": v for k, v in tags.items()}
        if description.status == "RUNNING":
            client.update_run(parent, status="RUNNING")
        else:
            ended = [r.ended for r in list(self._study.records.values()) if r.ended]
            at = _milliseconds(max(ended, default=time.time()))
            client.set_terminated(parent, description.status, at)
        self._then((Turn.FILES, WHOLE))

    def _file_search(self) -> None:
        description, parent = self._describe(), self._parent_run()
        for name, text in description.texts.items():
            if self._is_new(f"text {name}", text):
                self._client.log_text(parent, text, name)
                self._written[f"text {name}"] = text
        for file in description.files:
            stamp = str(file.stat().st_mtime_ns)
            if self._is_new(f"file {file.name}", stamp):
                self._client.log_artifact(parent, str(file))
                self._written[f"file {file.name}"] = stamp

    def _is_new(self, key: str, value: str) -> bool:
        return self._written.get(key) != value

    def _parent_run(self) -> str:
        if self._parent is None:
            experiment = self._client.get_experiment_by_name(self._name)
            if experiment and experiment.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(experiment.experiment_id)
            identity = (
                experiment.experiment_id
                if experiment
                else self._client.create_experiment(
                    self._name, artifact_location(self._uri), {"mlflow.experimentKind": KIND}
                )
            )
            self._experiment = identity
            tags = {"unfreeze.search": self._study.id, "unfreeze.kind": "search"}
            started = [r.started for r in list(self._study.records.values()) if r.started]
            run = self._find(tags) or self._client.create_run(
                identity,
                start_time=_milliseconds(min(started, default=time.time())),
                run_name=self._name,
                tags=tags,
            )
            self._parent = run.info.run_id
            # what an earlier driver wrote is not written again
            self._written |= {f"metric {k}": str(v) for k, v in run.data.metrics.items()}
            if run.inputs and run.inputs.dataset_inputs:
                self._written["inputs"] = "logged"
        return self._parent

    def _find(self, tags: dict[str, str]) -> Run | None:
        clause = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([self._experiment], clause, max_results=1)
        return found[0] if found else None

    def _fill_trial(self, number: int) -> None:
        record = self._study.records[number]
        if record.started is None:
            return
        state = self._state(record)  # first: what comes after it has a turn of its own
        run = self._trial_run(record)
        reports = [r for e, r in sorted(record.reports.items()) if e not in self._logged[number]]
        rows = [
            Metric(name, value, _milliseconds(record.times[report.epoch]), report.epoch)
            for report in reports
            for name, value in flat_metrics(report).items()
        ]
        # MLflow takes no name with the branch in it
        params = [Param(k, str(v)) for k, v in by_field(record.parameters).items()]
        params = params if self._is_new(f"params {number}", "logged") else []
        ends = self._is_new(f"end {number}", state)
        tags = [RunTag("unfreeze.end", state)] if ends else []
        tags += [RunTag("unfreeze.text", record.text[-4000:])] if ends and record.text else []
        if went_on := "; ".join(stretches(record)):
            tags += [RunTag("unfreeze.went_on", went_on[-4000:])] if rows or ends else []
        for start in range(BATCH, len(rows), BATCH):
            self._client.log_batch(run, metrics=rows[start : start + BATCH])
        if rows or params or tags:
            self._client.log_batch(run, metrics=rows[:BATCH], params=params, tags=tags)
        self._logged[number] |= {report.epoch for report in reports}
        self._written[f"params {number}"] = "logged"
        if ends:
            self._set_status(run, record, state)
        if record.end is not None and number not in self._filed:
            self._then((Turn.FILES, number))

    def _file_trial(self, number: int) -> None:
        """Log a finished trial's review; others have none."""
        run, place = self._runs[number], trial_folder(self._folder, number) / REVIEW
        if place.is_dir():
            sizes = {file.path: file.file_size for file in self._client.list_artifacts(run)}
            for file in (place / name for name in (PREDICTIONS, MISSES, CURVES, CLASSES)):
                # a driver that was killed meanwhile left half of one
                if file.is_file() and sizes.get(file.name, -1) not in (None, file.stat().st_size):
                    self._client.log_artifact(run, str(file))
            # MLflow shows this json as a table, and not as text
            tables = [{"path": CLASSES, "type": "table"}]
            self._client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(tables))
        self._filed.add(number)

    def _state(self, record: TrialRecord) -> str:
        if record.end is not None:
            return record.end.value
        return "running" if self._study.state == SearchState.RUNNING else "interrupted"

    def _trial_run(self, record: TrialRecord) -> str:
        number = record.number
        if number in self._runs:
            return self._runs[number]
        parent = self._parent_run()
        if self._earlier is None:
            self._earlier = self._trial_runs(parent)
        run = self._earlier.get(number)
        if run is None:
            try:
                run = self._client.create_run(
                    self._experiment,
                    start_time=_milliseconds(record.started or time.time()),
                    run_name=run_name(record),
                    tags={
                        "mlflow.parentRunId": parent,
                        "unfreeze.trial": str(number),
                        "unfreeze.origin": record.origin,
                    },
                )
            except Exception:
                self._earlier = None  # the server may have made it all the same
                raise
            self._logged[number] = set()
        elif record.end is not None and _has_ended(run, record.end):
            self._logged[number] = set(record.reports)
            self._written |= {f"params {number}": "logged", f"end {number}": record.end.value}
        else:
            history = self._client.get_metric_history(run.info.run_id, "val/map")
            self._logged[number] = {row.step for row in history}
        self._runs[number] = run.info.run_id
        return self._runs[number]

    def _trial_runs(self, parent: str) -> dict[int, Run]:
        """The runs there are of this search's trials, by number; people may nest others in it."""
        clause = f"tags.`mlflow.parentRunId` = '{parent}'"
        found: list[Run] = []
        page: str | None = ""
        while page is not None:
            runs = self._client.search_runs(
                [self._experiment], clause, max_results=RUNS, page_token=page or None
            )
            found += runs
            page = runs.token or None
        numbers = ((run.data.tags.get("unfreeze.trial", ""), run) for run in found)
        return {int(number): run for number, run in numbers if number.isdecimal()}

    def _set_status(self, run: str, record: TrialRecord, state: str) -> None:
        if state == "running":
            self._client.update_run(run, status="RUNNING")
        elif record.end is None:
            self._client.set_terminated(run, "KILLED")
        else:
            ended = _milliseconds(record.ended or time.time())
            self._client.set_terminated(run, STATUS[record.end], ended)
        self._written[f"end {record.number}"] = state


def _has_ended(run: Run, end: End) -> bool:
    """Whether a run says that its trial ended so, which is written after all else."""
    told: str | None = run.data.tags.get("unfreeze.end")
    return told == end.value and run.info.status == STATUS[end]


def artifact_location(uri: str) -> str | None:
    """Artifacts of a SQLite store lie beside it, not in whatever folder the command was typed;
    None leaves the place to the server."""
    file = uri.removeprefix("sqlite:///")
    return None if file == uri else (Path(file).resolve().parent / "mlartifacts").as_uri()


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
