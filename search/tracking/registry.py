"""The winner in MLflow's registry: `models:/NAME`, its best version under the alias `champion`."""

import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import save_model
from mlflow.tracking import MlflowClient

from trainer.data.dataset import Picture
from trainer.export.conversion import PORTABLE_FILES
from trainer.model.weights import SPEC_FILE

from ..exports.export_model import export_portable
from . import pyfunc

CHAMPION = "champion"
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "pillow")
"""Packages that the model needs, at the installed versions."""
SEARCH, WINNER = "unfreeze.search", "unfreeze.winner"
VAL, VAL_AP = "unfreeze.val", "unfreeze.val_ap"
"""Tags of a version: its search, its checkpoint, and its reported AP with the digest of val."""


def register(
    uri: str,
    name: str,
    search: str,
    winner: Path,
    metrics: dict[str, Any],
    val: tuple[Picture, ...],
) -> str:
    """Register the winner as a version of `models:/NAME`, once.

    The alias `champion` moves to it when its AP is better than the champion's on the same val.

    Args:
        uri: MLflow's tracking URI.
        name: of the search's experiment, and of the registered model.
        search: the search's id.
        winner: the exported folder.
        metrics: the winner's figures.
        val: pictures on which the ONNX export is compared.

    Returns:
        A line about the version and the champion.

    Raises:
        InputError: the winner cannot be exported to ONNX. Whatever MLflow raises comes out too.
    """
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    client = MlflowClient(uri)
    tags = {
        SEARCH: search,
        WINNER: "trial {trial} epoch {epoch}".format_map(metrics["of"]),
        VAL: metrics["val"]["data"],
        VAL_AP: str(metrics["val"]["figures"]["map"]),
    }
    known = _version_of(client, name, tags)
    new = known or _create(client, name, tags, winner, val)
    return _crown(client, name, tags, new.version)


def _crown(client: MlflowClient, name: str, tags: dict[str, str], number: str) -> str:
    """Move the alias to a version if it is better than the champion; returns a line about it."""
    champion = _champion(client, name)
    if champion is None or is_better(tags, champion.tags):
        client.set_registered_model_alias(name, CHAMPION, number)
        return f"models:/{name} version {number}, now its champion"
    if champion.version == number:
        return f"models:/{name} version {number}, its champion"
    same_val = champion.tags.get(VAL) == tags[VAL]
    why = f"AP {float(champion.tags[VAL_AP]):.3f}" if same_val else "measured on another val"
    return f"models:/{name} version {number}; its champion stays version {champion.version} ({why})"


def is_better(ours: dict[str, str], champions: dict[str, str]) -> bool:
    """Whether a version's reported AP is better than the champion's, on the same val."""
    if champions.get(VAL) != ours[VAL]:
        return False
    return float(ours[VAL_AP]) > float(champions[VAL_AP])


def _version_of(client: MlflowClient, name: str, tags: dict[str, str]) -> ModelVersion | None:
    for known in client.search_model_versions(f"name = '{name}'"):
        if all(known.tags.get(key) == tags[key] for key in (SEARCH, WINNER)):
            return known
    return None


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, number) if number is not None else None


def _create(
    client: MlflowClient, name: str, tags: dict[str, str], winner: Path, val: tuple[Picture, ...]
) -> ModelVersion:
    """Export the winner to ONNX, log it as a model, and register it as a new version."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, "the search's run is written before its model"
    with tempfile.TemporaryDirectory(prefix="unfreeze-model-") as temporary:
        model_folder = _write_model(winner, Path(temporary), val)
        run = _search_run(client, experiment.experiment_id, tags[SEARCH])
        model = client.create_logged_model(experiment.experiment_id, name, run, tags)
        client.log_model_artifacts(model.model_id, str(model_folder))
        client.finalize_logged_model(model.model_id, "READY")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model.model_id}"
    text = f"{tags[WINNER]}; AP {float(tags[VAL_AP]):.3f} on val, measured from the export"
    return client.create_model_version(
        name, source, run, tags, description=text, model_id=model.model_id
    )


def _write_model(winner: Path, folder: Path, val: tuple[Picture, ...]) -> Path:
    """Write the winner as an MLflow model; returns its folder."""
    export_portable(winner, "onnx", folder, val)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow asks for an input example
        save_model(
            folder / "model",
            python_model=pyfunc.__file__,
            artifacts={
                "onnx": str(folder / PORTABLE_FILES["onnx"]),
                "spec": str(folder / SPEC_FILE),
            },
            signature=ModelSignature(inputs=pyfunc.INPUTS),
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
        )
    return folder / "model"


def _search_run(client: MlflowClient, experiment: str, search: str) -> str | None:
    """The id of the search's run."""
    runs = client.search_runs(
        [experiment],
        f"tags.`unfreeze.search` = '{search}' and tags.`unfreeze.kind` = 'search'",
        max_results=1,
    )
    return runs[0].info.run_id if runs else None
