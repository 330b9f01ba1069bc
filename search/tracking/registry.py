"""The winner in MLflow's registry: `models:/NAME`, its best version under the alias `champion`."""

import os
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import save_model
from mlflow.tracking import MlflowClient

from trainer.data.dataset import Picture
from trainer.export.conversion import FILES
from trainer.model.weights import SPEC

from ..exports.export_model import make_portable
from . import pyfunc

CHAMPION = "champion"
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "pillow")
"""What the model runs on, at the versions here."""
SEARCH, WINNER = "unfreeze.search", "unfreeze.winner"
VAL, VAL_AP = "unfreeze.val", "unfreeze.val_ap"
"""Tags of a version: which search and checkpoint it is, and its reported AP on which val."""


def register(
    uri: str,
    name: str,
    search: str,
    winner: Path,
    metrics: dict[str, Any],
    val: tuple[Picture, ...],
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Have MLflow keep the winner as a version of `models:/NAME`, once; returns a line about it.

    `search` is the search's id, `metrics` are the winner's. The alias moves to it when its AP is
    better than the champion's on the same val. `say` is told before the export to ONNX, which takes
    a while. Raises BadInput when the winner cannot be exported to ONNX, and whatever MLflow raises.
    """
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    client = MlflowClient(uri)
    tags = {
        SEARCH: search,
        WINNER: "trial {trial} epoch {epoch}".format_map(metrics["of"]),
        VAL: metrics["val"]["data"],
        VAL_AP: str(metrics["val"]["figures"]["map"]),
    }
    known = _same(client, name, tags)
    if known is None:
        say("writing it as ONNX for MLflow's registry")
    made = known or _create(client, name, tags, winner, val)
    champion = _champion(client, name)
    if champion is None or is_better(tags, champion.tags):
        client.set_registered_model_alias(name, CHAMPION, made.version)
        return f"models:/{name} version {made.version}, now its champion"
    if champion.version == made.version:
        return f"models:/{name} version {made.version}, its champion"
    same = champion.tags.get(VAL) == tags[VAL]
    why = f"AP {float(champion.tags[VAL_AP]):.3f}" if same else "measured on another val"
    return (
        f"models:/{name} version {made.version}; its champion stays version {champion.version} "
        f"({why})"
    )


def is_better(ours: dict[str, str], champions: dict[str, str]) -> bool:
    """Whether a version's reported AP is better than the champion's, on the same val."""
    if champions.get(VAL) != ours[VAL]:
        return False
    return float(ours[VAL_AP]) > float(champions[VAL_AP])


def _same(client: MlflowClient, name: str, tags: dict[str, str]) -> ModelVersion | None:
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
    with tempfile.TemporaryDirectory(prefix="unfreeze-model-") as place:
        folder = Path(place)
        make_portable(winner, "onnx", folder, val)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses an example
            save_model(
                folder / "model",
                python_model=pyfunc.__file__,
                artifacts={"onnx": str(folder / FILES["onnx"]), "spec": str(folder / SPEC)},
                signature=ModelSignature(inputs=pyfunc.INPUTS),
                pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            )
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None, "the search's rows come first"
        runs = client.search_runs(
            [experiment.experiment_id],
            f"tags.`unfreeze.search` = '{tags[SEARCH]}' and tags.`unfreeze.kind` = 'search'",
            max_results=1,
        )
        run = runs[0].info.run_id if runs else None
        model = client.create_logged_model(experiment.experiment_id, name, run, tags)
        client.log_model_artifacts(model.model_id, str(folder / "model"))
        client.finalize_logged_model(model.model_id, "READY")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"models:/{model.model_id}"
    told = f"{tags[WINNER]}; AP {float(tags[VAL_AP]):.3f} on val, measured from the export"
    return client.create_model_version(
        name, source, run, tags, description=told, model_id=model.model_id
    )
