"""All errors of a search's configuration, before anything starts."""

import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from trainer.config import Data, InputError
from trainer.config_errors import parse_valid_fields
from trainer.config_fields import is_set_by_user
from trainer.config_rules import cross_field_errors, opens_gradually
from trainer.model.detectors import model_errors
from trainer.model.outline import count_stages, unused_settings
from trainer.phases import resolve_depth
from trainer.text.redaction import HIDDEN, redacted

from .config import SearchConfig
from .locations import STUDY_VARIABLE, tracking_uri, with_absolute_paths
from .space import Space, all_dimensions, read_space, samples
from .space_validation import space_errors

STORES = {"http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks"}
"""Schemes of tracking URIs that MLflow has stores for without plugins."""


def checked_config(
    raw: dict[str, Any], beside: Path, elsewhere: bool = False, without_space: bool = False
) -> SearchConfig:
    """Check raw values and make every path absolute, see `with_absolute_paths`.

    Args:
        raw: The content of a YAML file.
        beside: The folder of the file.
        elsewhere: Whether another machine runs the search: then its files may be missing here.
        without_space: Whether to leave out the space, as `unfreeze train` does.

    Raises:
        InputError: Has every error.
    """
    config, errors = parse_valid_fields(SearchConfig, raw)
    if config is None:
        raise InputError(errors)
    config = with_absolute_paths(config, beside)
    ignored = frozenset(config.space if without_space else ())
    if without_space:
        search = config.search.model_copy(update={"first": []})
        config = config.model_copy(update={"space": {}, "search": search})
    missing = _file_errors(config) if elsewhere else []
    errors += [
        line
        for line in search_config_errors(config, ignored)
        if line not in errors
        and line not in missing
        and not (elsewhere and "model.weights: no file or folder" in line)
    ]
    if errors:
        raise InputError(errors)
    return config


def search_config_errors(config: SearchConfig, ignored: frozenset[str] = frozenset()) -> list[str]:
    """Errors between fields of a search, and of its space; empty if there are none.

    Args:
        config: The configuration.
        ignored: Dotted names in a space that was left out of it, see `cross_field_errors`.
    """
    errors = cross_field_errors(config.train, frozenset(config.space), ignored)
    errors += _password_errors(config) + uri_errors(tracking_uri(config.tracking))
    errors += _file_errors(config) + _resource_errors(config)
    space: Space = []
    try:
        space = read_space(config.space)
    except InputError as error:
        errors += error.errors
    errors += _asha_errors(config, space)
    if wrong := model_errors(config.model):
        return errors + wrong
    errors += _unused_errors(config, ignored.union(config.space))
    try:
        stages = count_stages(config.model)
        resolve_depth(config.train.unfreeze.depth, stages)
    except InputError as error:
        return errors + error.errors
    return errors + space_errors(space, config, config.search.first, stages)


def _unused_errors(config: SearchConfig, varied: frozenset[str]) -> list[str]:
    """Fields that are set but have no effect with this model, unless a space varies the model."""
    if any(name.startswith("model.") for name in varied):
        return []
    return [
        f"{path}: has no effect, since {why}; leave it out"
        for path, why in unused_settings(config).items()
        if path not in varied and is_set_by_user(config, path)
    ]


def _password_errors(config: SearchConfig) -> list[str]:
    variables = {"study": STUDY_VARIABLE, "tracking": "MLFLOW_TRACKING_URI"}
    return [
        f"{name}: {redacted(uri)} has a password in it, which would be stored; leave {name} out "
        f"and set {variable}"
        for name, variable in variables.items()
        if (uri := getattr(config, name)) and redacted(uri) != uri and HIDDEN not in uri
    ]


def uri_errors(uri: str) -> list[str]:
    """An error if MLflow has no store for a tracking URI; empty if it has one."""
    kind, is_url, _ = uri.partition("://")
    legal = {*STORES, *(store.name for store in entry_points(group="mlflow.tracking_store"))}
    known = kind.partition("+")[0] in legal and (is_url or kind == "databricks")
    # MLflow no longer maintains its file store, and opens it only if this variable is set
    is_allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
    is_folder = (not is_url or kind == "file") and is_allowed
    if uri == "off" or known or is_folder:
        return []
    return [f"tracking: {redacted(uri)} (legal: off, or one of {', '.join(sorted(legal))}://)"]


def _file_errors(config: SearchConfig) -> list[str]:
    errors = []
    if isinstance(config.data, Data):
        for name in ("train", "val", "test"):
            file = getattr(config.data, name)
            if file is not None and not file.exists():
                errors.append(f"data.{name}: no file {file}")
        folders = config.data.images
        for folder in folders.values() if isinstance(folders, dict) else [folders]:
            if folder is not None and not folder.is_dir():
                errors.append(f"data.images: no folder {folder}")
    return errors


def _resource_errors(config: SearchConfig) -> list[str]:
    """Resources of a trial that this machine lacks; for a cluster the driver checks them later."""
    resources = config.resources
    if resources == "auto":
        return []
    if resources.accelerator_type and not resources.gpus_per_trial:
        return [
            f"resources.accelerator_type: {resources.accelerator_type} has no effect while "
            "gpus_per_trial is 0"
        ]
    if config.cluster != "local":
        return []
    offered = {"cpus_per_trial": os.cpu_count() or 1, "gpus_per_trial": torch.cuda.device_count()}
    return [
        f"resources.{name}: {wanted:g} (legal: at most {most}, what this machine has)"
        for name, most in offered.items()
        if (wanted := getattr(resources, name)) > most
    ]


def _asha_errors(config: SearchConfig, space: Space) -> list[str]:
    asha, unfreeze = config.search.asha, config.train.unfreeze
    if asha == "off":
        return []
    errors = []
    grace = f"search.asha.grace_period: {asha.grace_period}"
    if asha.grace_period > unfreeze.epochs:
        errors.append(f"{grace} is more than train.unfreeze.epochs ({unfreeze.epochs})")
    dimensions = all_dimensions(space)
    opening = [d for d in dimensions if d.name == "train.unfreeze.open_epochs"]
    most = max([unfreeze.open_epochs, *(value for d in opening for value in samples(d))])
    slowly = opens_gradually(config.train, {dimension.name for dimension in dimensions})
    if slowly and asha.grace_period < most:
        errors.append(
            f"{grace} is less than train.unfreeze.open_epochs ({most}): "
            "trials would be judged half open"
        )
    return errors
