"""MLflow's run of a search, in a real SQLite store."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search.study.study import Study
from search.tracking.search_run import artifact_location

from .conftest import described, fill_mlflow, runs_of


def test_the_search_itself_has_params_tags_figures_and_texts(store: str, study: Study) -> None:
    fill_mlflow(store, study, "itself")
    parent, _ = runs_of(store, "itself")
    assert parent.info.run_name == "itself"
    assert parent.data.params == {"backbone": "tf_efficientnet_lite0"}
    assert parent.data.tags["unfreeze.state"] == "done"
    assert parent.data.metrics == {"best_map": 0.5}
    client = MlflowClient(store)
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["table.md"]


def test_a_deleted_experiment_is_restored(store: str, study: Study) -> None:
    fill_mlflow(store, study, "deleted")
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("deleted")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    fill_mlflow(store, study, "deleted")
    assert len(runs_of(store, "deleted")[1]) == len(study.records)


def test_a_search_shows_its_data_and_files(store: str, study: Study, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>")
    fill_mlflow(store, study, "shown", lambda: replace(described(), files=(page,)))
    parent, _ = runs_of(store, "shown")
    files = MlflowClient(store).list_artifacts(parent.info.run_id)
    assert {f.path for f in files} == {"table.md", "report.html"}
    assert parent.inputs is not None
    (given,) = parent.inputs.dataset_inputs
    assert given.dataset.profile is not None
    assert (given.dataset.name, given.dataset.digest) == ("d val", "abababababab")
    assert json.loads(given.dataset.profile) == {"num_rows": 6, "boxes": 9}
    fill_mlflow(store, study, "shown")
    inputs = runs_of(store, "shown")[0].inputs
    assert inputs is not None and len(inputs.dataset_inputs) == 1


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("sqlite:////data/store/mlflow.db", "file:///data/store/mlartifacts"),
        ("http://host:5000", None),
        ("postgresql://host/mlflow", None),
    ],
)
def test_artifacts_lie_beside_a_sqlite_store(uri: str, location: str | None) -> None:
    assert artifact_location(uri) == location
