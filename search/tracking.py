"""MLflow as a mirror of the study: what it lacks is filled in, by one thread of the driver.

A trial is a child run of its search's run. Rows carry the study's timestamps, so that a replay
writes the same rows; a server that is away delays them and stops nothing. Credentials are MLflow's
own affair: it reads them from the environment, and nothing here sees them.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from textwrap import shorten

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from trainer.review import CLASSES, CURVES, MISSES, PREDICTIONS, REVIEW

from .config import redacted, trial_folder
from .description import Description, flat_metrics, run_name
from .space import by_field
from .store import open_store
from .study import End, Study, TrialRecord

log = logging.getLogger(__name__)

STATUS = {
    End.FINISHED: "FINISHED",
    End.PRUNED: "KILLED",
    End.DIVERGED: "FAILED",
    End.OUT_OF_MEMORY: "FAILED",
    End.ERROR: "FAILED",
    End.LOST: "FAILED",
}
RETRY_SECONDS = 5.0
UNKNOWN_SECONDS = 10.0
"""Seconds to wait, at the end, for a server that never answered."""
KIND = "custom_model_development"
"""Of an experiment: MLflow shows one of training, and not of language models."""
BATCH = 900
"""Metrics a request; MLflow takes 1000 metrics, params and tags in all."""
PAUSE = 1.0
"""Seconds between rounds of filling in: what is new meanwhile about a trial goes into one
request."""
RUNS = 1000
"""Runs a page of MLflow's answer."""
REFUSALS = 3
"""Files in a row that a store may refuse before the end of a search waits for it no more."""
SEARCH_SECONDS = 10.0
"""Between two looks at the search as a whole, which reads every trial."""


class Turn(IntEnum):
    """What is filled in, in this order: the search's run is the parent of the others, and files
    may be slow."""

    SEARCH = 0
    ROWS = 1
    FILES = 2


Item = tuple[Turn, int]
"""And the trial's number; the search's own is WHOLE."""
WHOLE = -1


def try_once() -> None:
    """Have MLflow's client give up soon; by itself it tries for minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def reason(error: Exception) -> str:
    """The first line of an error of MLflow's, without secrets; where its client gave up after
    several tries, what it met with."""
    text = (str(error).splitlines() or [""])[0]
    text = text.rpartition("Caused by ")[2].removesuffix("))") or text
    return f"{type(error).__name__}: {shorten(redacted(text), 200)}"


class NoTracking:
    """Tracking switched off: the same face, and nothing behind it."""

    lacks = ""

    def wake(self, number: int | None) -> None:
        """Nothing to fill in."""

    def close(self, seconds: float) -> bool:
        """Nothing to wait for."""
        return True


class MlflowTracking:
    """Fills MLflow from a study in a thread of its own.

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
    ) -> None:
        try_once()  # we come again anyway, and must not hold up an end
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = (
            "true"  # a line a run, into the table
        )
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self._uri = uri
        self._study = study
        self._name = name
        self._folder = folder
        self._describe = describe
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._runs: dict[int, str] = {}
        self._earlier: dict[int, Run] | None = None
        """Runs of trials that an earlier driver made, or a request without an answer, by number."""
        self._logged: dict[int, set[int]] = {}
        self._written: dict[str, str] = {}
        self._filed: set[int] = set()
        self._parent: str | None = None
        self._stale: dict[Item, int] = {}
        """What is to be filled in, with the times it failed: what never goes blocks nothing."""
        self._given_up: set[Item] = set()
        self._refused = 0
        """Files that were not taken, one after another."""
        self._reasons: dict[bool, str] = {}
        """Why MLflow did not take rows, and why files (True), the last time."""
        self._search_again = 0.0
        self._reached = uri.startswith("sqlite")  # a file is there; making its tables takes a while
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        for number in study.records:
            self.wake(number)
        self.wake(None)
        self._thread.start()

    def wake(self, number: int | None) -> None:
        """Something about this trial (None: the search) is new in the study."""
        self._queue.put((Turn.SEARCH, WHOLE) if number is None else (Turn.ROWS, number))

    def close(self, seconds: float) -> bool:
        """Wait until everything is filled in, at most so long; False when something is missing.

        For a server that never answered it does not wait long.
        """
        self.wake(None)
        self._closing.set()
        self._thread.join(min(seconds, UNKNOWN_SECONDS))
        if self._reached:
            self._thread.join(max(0.0, seconds - UNKNOWN_SECONDS))
        complete = not self._thread.is_alive() and not self._given_up
        self._abandoned.set()  # another writer may come: two would write rows twice
        return complete

    @property
    def lacks(self) -> str:
        """What MLflow did not take before it was closed, and what to do; empty where it has all."""
        left = [*list(self._stale), *self._given_up]
        files_alone = all(turn is Turn.FILES for turn, _ in left)
        if not left:
            return ""
        why, place = self._reasons.get(files_alone, "too slow"), redacted(self._uri)
        if files_alone:
            return (
                f"MLflow lacks files of {len(left)} runs, which its artifact store did not take "
                f"({why}); they are in {self._folder} all the same. The same line logs them once "
                f"it takes files"
            )
        return (
            f"MLflow lacks some rows still, {place} did not take them in time ({why}); once it "
            "does, the same line again fills them in"
        )

    def _work(self) -> None:
        stale = self._stale
        while True:
            self._collect(stale, wait=not stale and not self._closing.is_set())
            if not stale and self._closing.is_set():
                return
            for item in sorted(filter(self._is_due, stale), key=lambda item: (stale[item], item)):
                if self._abandoned.is_set():
                    return
                try:
                    self._fill(*item)
                    self._reached = True
                    del stale[item]
                    self._refused = 0 if item[0] is Turn.FILES else self._refused
                except Exception as error:  # whatever a server, a disk or a network can do
                    stale[item] += 1
                    self._complain(error, item[0] is Turn.FILES)
                    if not self._give_up(item):
                        time.sleep(RETRY_SECONDS)
                        break
            self._closing.wait(PAUSE)

    def _give_up(self, item: Item) -> bool:
        """Leave a file to the next driver, where MLflow has all rows and takes no files."""
        self._refused += item[0] is Turn.FILES
        gone = (
            self._closing.is_set()
            and self._refused >= REFUSALS
            and all(turn is Turn.FILES for turn, _ in self._stale)
        )
        if gone:
            self._given_up.add(item)
            del self._stale[item]
        return gone

    def _is_due(self, item: Item) -> bool:
        return item != (Turn.SEARCH, WHOLE) or (
            self._closing.is_set() or time.monotonic() >= self._search_again
        )

    def _collect(self, stale: dict[Item, int], wait: bool) -> None:
        try:
            while True:
                stale.setdefault(self._queue.get(timeout=0.5 if wait else 0), 0)
                wait = False
        except queue.Empty:
            return

    def _fill(self, turn: Turn, number: int) -> None:
        if turn is Turn.ROWS:
            self._fill_trial(number)
        elif turn is Turn.SEARCH:
            self._fill_search()
        elif number == WHOLE:
            self._file_search()
        else:
            self._file_trial(number)

    def _complain(self, error: Exception, files: bool) -> None:
        if files not in self._reasons:
            log.warning(
                "MLflow does not take our %s (%s); the search goes on, and they are filled in "
                "when it does",
                "files" if files else "rows",
                reason(error),
            )
        self._reasons[files] = reason(error)

    @cached_property
    def _client(self) -> MlflowClient:
        return open_store(self._uri)  # in the thread: a store that cannot be opened raises here

    def _fill_search(self) -> None:
        self._search_again = time.monotonic() + SEARCH_SECONDS
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
        self._queue.put((Turn.FILES, WHOLE))

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
            tags = {"unfreeze.search": self._study.get("id"), "unfreeze.kind": "search"}
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
        for start in range(BATCH, len(rows), BATCH):
            self._client.log_batch(run, metrics=rows[start : start + BATCH])
        if rows or params or tags:
            self._client.log_batch(run, metrics=rows[:BATCH], params=params, tags=tags)
        self._logged[number] |= {report.epoch for report in reports}
        self._written[f"params {number}"] = "logged"
        if ends:
            self._set_status(run, record, state)
        if record.end is not None and number not in self._filed:
            self._queue.put((Turn.FILES, number))

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
        return "running" if self._study.get("state") == "running" else "interrupted"

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
