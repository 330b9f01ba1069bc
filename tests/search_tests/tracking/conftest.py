"""What the tests of tracking share: a study, and what MLflow has of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from search.space.space import read_space
from search.study.record import End
from search.study.search_state import SearchState
from search.study.storage import open_study
from search.study.study import Study
from search.tracking.description import DataInput, Description
from search.tracking.tracking import MlflowTracking
from trainer.evaluation.review import CLASSES, CURVES, MISSES, PREDICTIONS, REVIEW

from ..conftest import SPACE

Make = Callable[..., Any]
SECONDS = 60.0
"""How long a test waits for the tracking thread."""
FOLDER = Path("kept")
"""The search's folder, in the folder of each test."""


def described(status: str = "FINISHED") -> Description:
    return Description(
        status=status,
        params={"backbone": "tf_efficientnet_lite0"},
        tags={"unfreeze.state": "done"},
        metrics={"best_map": 0.5},
        texts={"table.md": "| a |\n"},
        inputs=(
            DataInput(split="val", name="d val", digest="ab" * 32, source="d", pictures=6, boxes=9),
        ),
    )


@pytest.fixture
def study(make_search: Make, make_reports: Make) -> Study:
    """A study with one trial of every end, and one that runs."""
    study = open_study(FOLDER, "tiny", trials=9)
    study.id = "id of this search"
    study.state = SearchState.RUNNING
    for number, end in enumerate((*End, None)):
        study.ask(read_space(SPACE), make_search())
        for report in make_reports([0.1, 0.2 + number / 100, 0.1]):
            study.record(number, report)
        if end is not None:
            study.end(number, end, "Traceback\nKeyError: 1" if end is End.ERROR else "")
    return study


def fill_mlflow(store: str, study: Study, name: str, describe: Any = described) -> None:
    tracker = MlflowTracking(store, study, name, FOLDER, describe)
    assert tracker.close(SECONDS)
    assert not tracker.lacks


def runs_of(store: str, name: str) -> tuple[Run, dict[int, Run]]:
    """The search's run and the trials' by number; there are no others."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    trials = {
        int(r.data.tags["unfreeze.trial"]): r for r in runs if "unfreeze.trial" in r.data.tags
    }
    (parent,) = [r for r in runs if r.data.tags.get("unfreeze.kind") == "search"]
    assert len(runs) == 1 + len(trials)
    return parent, trials


def history(store: str, run: Run) -> dict[str, list[tuple[int, int, float]]]:
    """Every row of every metric of a run: step, timestamp, value."""
    client = MlflowClient(store)
    return {
        key: [
            (m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, key)
        ]
        for key in run.data.metrics
    }


def everything(store: str, run: Run) -> Any:
    """All of a run but its end time, which a replay writes with a small difference."""
    info = run.info
    fields = (info.run_id, info.run_name, info.status, info.start_time, run.data.params)
    return fields, run.data.tags, history(store, run)


@pytest.fixture
def reviewed(study: Study) -> Study:
    """The study, with the review of its finished trial."""
    place = FOLDER / "trials" / "0" / REVIEW
    place.mkdir(parents=True)
    for name in (PREDICTIONS, MISSES, CURVES):
        (place / name).write_bytes(b"picture")
    (place / ".part").write_bytes(b"half")
    table = {"columns": ["class", "AP"], "data": [["red", 0.5], ["blue", None]]}
    (place / CLASSES).write_text(json.dumps(table))
    return study
