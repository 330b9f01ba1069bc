"""Opening a search for its driver: its folder and study, of a new search or a continued one."""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.config import Depth, InputError, Model
from trainer.config_errors import parse
from trainer.data.dataset import Splits
from trainer.data.loading import SPLITS_FILE, splits_file_content
from trainer.model.checkpoint import write_atomically
from trainer.model.detectors import build
from trainer.model.outline import count_stages
from trainer.text.redaction import redacted

from ..space.config import SearchConfig
from ..space.config_file import CONFIG_FILE, RESTORE_HINT, stored_config, write_yaml
from ..space.locations import TRIALS, study_uri
from ..space.sampling import base_parameters
from ..space.space import Space, contains, with_values
from .disk import delete_partial_files
from .journal import JOURNAL
from .reading import read_stored_config, study_name
from .storage import open_study
from .study import Study

MAY_CHANGE = (
    "search.trials",
    "search.time_budget",
    "search.confirm",
    "search.max_failed_trials",
    "search.hang_timeout",
    "search.disk_cap",
    "resources",
    "cluster",
    "tracking",
    "register_model",
    "storage",
    "name",  # the folder may be renamed
)
"""Fields that may change when a search is continued."""


def refuse_changes(config: SearchConfig) -> None:
    """Raise InputError with the differences if the folder has a search of another configuration."""
    if not (config.folder / CONFIG_FILE).is_file():
        return
    before, now = (
        _flat(_with_defaults(read_stored_config(config.folder))),
        _flat(stored_config(config)),
    )
    errors = [
        f"{name}: {now.get(name, 'nothing')} (was {before.get(name, 'nothing')})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE)
    ]
    if not errors:
        return
    has_trials = any((config.folder / TRIALS).glob("*"))
    raise InputError(
        [
            f"{config.folder} holds a search of this name with another configuration; give "
            "this one another --name, or undo"
            + ("" if has_trials else " (or delete it: it has no trials yet)")
            + ":",
            *errors,
        ]
    )


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """A stored config with the defaults of fields that did not exist when it was written."""
    try:
        return parse(SearchConfig, raw).model_dump(mode="json")
    except InputError:  # it has a field that no longer exists
        return raw


def _flat(raw: Any, prefix: str = "") -> dict[str, Any]:
    """Values by dotted path."""
    if not isinstance(raw, dict) or not raw:
        return {prefix.removesuffix("."): raw}
    return {
        k: v for name, inner in raw.items() for k, v in _flat(inner, f"{prefix}{name}.").items()
    }


def check_models_build(models: Iterable[Model], classes: int) -> None:
    """Build every model that trials may have, with its weights, before the search has a folder.

    Args:
        models: See `reachable_models`.
        classes: How many classes the data set has.

    Raises:
        InputError: Has the errors of all models.
    """
    errors: list[str] = []
    for model in models:
        try:
            build(model, classes)
        except InputError as error:
            errors += [line for line in error.errors if line not in errors]
    if errors:
        raise InputError(errors)


def open_search(config: SearchConfig, space: Space, data: Splits) -> Study:
    """Open or create the study of a search; trials that were left running wait again.

    Call it with the folder locked. A new search gets its first trials.

    Raises:
        InputError: The folder has a search of another configuration, the data set has changed since
            the search was new, or the study belongs to another folder.
    """
    refuse_changes(config)
    settings = {"seed": config.search.seed, "trials": config.search.trials}
    name, uri = study_name(config), study_uri(config)
    study = open_study(config.folder, name, uri, **settings)
    _refuse_other_study(config, study, uri)
    if study.data_digest not in ("", data.digest):
        raise InputError(
            [f"data: its content has changed since the search in {config.folder} started"]
        )
    _write_folder(config, data, name)
    if uri is not None:
        study.folder = str(config.folder)
    if not study.id:
        study.data_digest = data.digest
        study.id = uuid.uuid4().hex
    study.release_running()
    delete_partial_files(config.folder)
    if all(record.origin != "sampled" for record in study.records.values()):
        _enqueue_first(config, space, study)
    return study


def _write_folder(config: SearchConfig, data: Splits, name: str) -> None:
    """Write the configuration with the study's name, and the val split if it was made."""
    content = {k: v for k, v in stored_config(config).items() if k != "storage"} | {"name": name}
    write_atomically(write_yaml(content).encode(), config.folder / CONFIG_FILE)
    if data.val_is_from_train:
        write_atomically(splits_file_content(data), config.folder / SPLITS_FILE)


def _refuse_other_study(config: SearchConfig, study: Study, uri: str | None) -> None:
    """Raise InputError if a study does not belong to this folder."""
    folder, is_known = config.folder, bool(study.id)
    place = redacted(uri) if uri is not None else folder / JOURNAL
    if is_known and not (folder / CONFIG_FILE).is_file():
        missing = f"{folder / CONFIG_FILE} is missing; {RESTORE_HINT}"
        elsewhere = (
            f"name: {config.name}: a study of this name belongs to a search in another folder; "
            "give this one another --name"
        )
        raise InputError([missing if uri is None else elsewhere])
    if not is_known and any((folder / TRIALS).glob("*")):
        raise InputError([f"{place} has none of the trials in {folder}; {RESTORE_HINT}"])
    other = Path(study.folder or folder)
    if uri is not None and (other / CONFIG_FILE).is_file() and not other.samefile(folder):
        raise InputError(
            [
                f"{folder} is a copy of {other}, and both have one study, in {place}: continue in "
                "that folder, or start a new search under another --name"
            ]
        )


def _enqueue_first(config: SearchConfig, space: Space, study: Study) -> None:
    """Enqueue the baseline, the baseline with everything unfrozen, and `search.first`."""
    points = [
        ("as written", config),
        *(("first", with_values(config, v)) for v in config.search.first),
    ]
    all_depths: tuple[Depth, ...] = ("all", count_stages(config.model))
    for dimension in space:
        legal = [depth for depth in all_depths if contains(dimension, depth)]
        if dimension.name == "train.unfreeze.depth" and legal:
            points.insert(1, ("all unfrozen", with_values(config, {dimension.name: legal[0]})))
    seen = [record.parameters for record in study.records.values()]
    for origin, point in points[: config.search.trials]:
        parameters = base_parameters(space, point)
        if parameters not in seen:
            seen.append(parameters)
            study.enqueue(parameters, origin)
