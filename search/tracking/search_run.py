"""MLflow's run of a search, the parent of its trials' runs: params, tags, data, artifacts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from ..study.study import Study
from .database import open_store
from .description import Description

EXPERIMENT_KIND = "custom_model_development"
"""Kind of an experiment: MLflow shows training, and not language models."""


@dataclass(frozen=True)
class TrackedSearch:
    """A search that MLflow shows."""

    uri: str
    """The tracking URI."""
    study: Study
    name: str
    """The search's name, which is the experiment's."""
    folder: Path
    """The search's folder, where finished trials leave their reviews."""
    describe: Callable[[], Description]
    """Gives the search's params, tags and artifacts as they are now."""


class SearchRun:
    """Writes the run of the search itself. Exceptions of MLflow propagate."""

    def __init__(self, search: TrackedSearch) -> None:
        self.search = search
        self._in_mlflow: dict[str, str] = {}
        """What MLflow has already, by kind and name."""

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client; made at first use, in the tracking thread, where it may raise."""
        return open_store(self.search.uri)

    @cached_property
    def experiment(self) -> str:
        """The id of the search's experiment, which is made or restored."""
        known = self.client.get_experiment_by_name(self.search.name)
        if known is None:
            return self.client.create_experiment(
                self.search.name,
                artifact_location(self.search.uri),
                {"mlflow.experimentKind": EXPERIMENT_KIND},
            )
        if known.lifecycle_stage == LifecycleStage.DELETED:
            self.client.restore_experiment(known.experiment_id)
        return known.experiment_id

    @cached_property
    def id(self) -> str:
        """The id of the search's run, which is made where MLflow has none."""
        study = self.search.study
        tags = {"unfreeze.search": study.id, "unfreeze.kind": "search"}
        started = [r.started for r in list(study.records.values()) if r.started]
        run = self._find(tags) or self.client.create_run(
            self.experiment,
            start_time=milliseconds(min(started, default=time.time())),
            run_name=self.search.name,
            tags=tags,
        )
        # an earlier driver may have written these
        self._in_mlflow |= {f"metric {k}": str(v) for k, v in run.data.metrics.items()}
        if run.inputs and run.inputs.dataset_inputs:
            self._in_mlflow["inputs"] = "logged"
        run_id: str = run.info.run_id
        return run_id

    def _find(self, tags: dict[str, str]) -> Run | None:
        clause = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        runs = self.client.search_runs([self.experiment], clause, max_results=1)
        return runs[0] if runs else None

    def fill(self) -> None:
        """Write params, tags, metrics, data sets and status."""
        description = self.search.describe()
        run = self.id
        params = {k: v for k, v in description.params.items() if self._is_new(f"param {k}", v)}
        tags = {k: v for k, v in description.tags.items() if self._is_new(f"tag {k}", v)}
        metrics = {
            k: v for k, v in description.metrics.items() if self._is_new(f"metric {k}", str(v))
        }
        now = milliseconds(time.time())
        self.client.log_batch(
            run,
            metrics=[Metric(k, v, now, 0) for k, v in metrics.items()],
            params=[Param(k, v) for k, v in params.items()],
            tags=[RunTag(k, v) for k, v in tags.items()],
        )
        if description.inputs and self._is_new("inputs", "logged"):
            self.client.log_inputs(run, [one.entity() for one in description.inputs])
            self._in_mlflow["inputs"] = "logged"
        self._in_mlflow |= {f"metric {k}": str(v) for k, v in metrics.items()}
        self._in_mlflow |= {f"param {k}": v for k, v in params.items()}
        self._in_mlflow |= {f"tag {k}": v for k, v in tags.items()}
        self._set_status(description.status)

    def _set_status(self, status: str) -> None:
        if status == "RUNNING":
            self.client.update_run(self.id, status=status)
            return
        ends = [r.ended for r in list(self.search.study.records.values()) if r.ended]
        ended = milliseconds(max(ends, default=time.time()))
        self.client.set_terminated(self.id, status, ended)

    def fill_files(self) -> None:
        """Log the search's artifacts that are new or have changed."""
        description = self.search.describe()
        for name, text in description.texts.items():
            if self._is_new(f"text {name}", text):
                self.client.log_text(self.id, text, name)
                self._in_mlflow[f"text {name}"] = text
        for file in description.files:
            stamp = str(file.stat().st_mtime_ns)
            if self._is_new(f"file {file.name}", stamp):
                self.client.log_artifact(self.id, str(file))
                self._in_mlflow[f"file {file.name}"] = stamp

    def _is_new(self, key: str, value: str) -> bool:
        return self._in_mlflow.get(key) != value


def artifact_location(uri: str) -> str | None:
    """The folder of a SQLite store's artifacts: beside the store, wherever the command is typed.

    None leaves the place to the server.
    """
    file = uri.removeprefix("sqlite:///")
    return None if file == uri else (Path(file).resolve().parent / "mlartifacts").as_uri()


def milliseconds(seconds: float) -> int:
    """A time of the study as MLflow's timestamp."""
    return int(seconds * 1000)
