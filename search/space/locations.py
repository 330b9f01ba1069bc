"""Where a search's files and databases are: folders, URIs, and relative paths made absolute."""

import os
from pathlib import Path
from typing import Any

from trainer.config import NAMED_WEIGHTS, Data, InputError
from trainer.text.redaction import HIDDEN, redacted

from .config import SearchConfig

STUDY_VARIABLE = "UNFREEZE_STUDY"
"""Environment variable with the URL of the study's database, for a URL with a password."""
SQLITE = "sqlite:///"
"""Begins the URI of a SQLite file."""

TRIALS = "trials"
"""Folder in a search's folder: the checkpoints and the review of each trial."""
PHASES = "phases"
"""Folder in a search's folder: the phases that trials finished, for other trials to start from."""
WINNER = "winner"
"""Folder in a search's folder: the export of its winner."""


def trial_folder(search: Path, number: int) -> Path:
    """The folder of a trial's checkpoints; `search` is the search's folder."""
    return search / TRIALS / str(number)


def tracking_uri(uri: str | None) -> str:
    """An MLflow tracking URI, else MLFLOW_TRACKING_URI, else SQLite in the working folder."""
    return _absolute_uri(uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db")


def study_uri(config: SearchConfig) -> str | None:
    """The URL of the study's database; None means the journal in the search's folder.

    Raises:
        InputError: The study's URL has a password that the environment does not give now.
    """
    given = os.environ.get(STUDY_VARIABLE)
    uri = config.study or given
    if uri is None:
        return None
    if HIDDEN in uri:
        if given is None or redacted(given) != uri:
            raise InputError([f"study: {uri}: set {STUDY_VARIABLE} to it, with its password"])
        uri = given
    return _absolute_uri(uri)


def _absolute_uri(uri: str) -> str:
    if uri.startswith(SQLITE):
        return SQLITE + str(Path(uri.removeprefix(SQLITE)).resolve())
    return uri


def with_absolute_paths(config: SearchConfig, beside: Path) -> SearchConfig:
    """The config with absolute paths.

    Args:
        config: `storage` is relative to the working folder.
        beside: The folder of the YAML file; `data` and `weights` are relative to it.
    """
    data = config.data
    weights = _absolute_weights(config.model.weights, beside)
    return config.model_copy(
        update={
            "data": data_with_absolute_paths(data, beside) if isinstance(data, Data) else data,
            "model": config.model.model_copy(update={"weights": weights}),
            "space": _absolute_space(config.space, beside),
            "storage": config.storage.resolve(),
        }
    )


def data_with_absolute_paths(data: Data, beside: Path) -> Data:
    """The data part with absolute paths; they are relative to the folder `beside`."""
    images = data.images
    if isinstance(images, dict):
        images = {name: _absolute(beside / folder) for name, folder in images.items()}
    elif images is not None:
        images = _absolute(beside / images)
    files = {
        name: _absolute(beside / file)
        for name in ("train", "val", "test")
        if (file := getattr(data, name))
    }
    return data.model_copy(update={**files, "images": images})


def _absolute_weights(weights: Any, beside: Path) -> Any:
    if weights in NAMED_WEIGHTS or not isinstance(weights, str):
        return weights
    return str(_absolute(beside / weights))


def _absolute_space(space: dict[str, Any], beside: Path) -> dict[str, Any]:
    """A raw space in which the files among the weights are absolute; errors in it stay."""
    absolute_space = {}
    for name, spec in space.items():
        choices = spec.get("choice") if isinstance(spec, dict) else None
        if isinstance(choices, dict):
            choices = {
                _absolute_weights(value, beside) if name == "model.weights" else value: (
                    _absolute_space(inner, beside) if isinstance(inner, dict) else inner
                )
                for value, inner in choices.items()
            }
        if name == "model.weights" and isinstance(choices, list):
            choices = [_absolute_weights(choice, beside) for choice in choices]
        absolute_space[name] = spec if choices is None else {**spec, "choice": choices}
    return absolute_space


def _absolute(path: Path) -> Path:
    # resolve() follows links, but a file's name and folder say what it is and where its images are
    return Path(os.path.abspath(path))  # noqa: PTH100
