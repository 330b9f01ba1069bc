"""Opening a search: the folder and the study of a new one, or of one that is continued."""

import uuid
from collections.abc import Iterable
from typing import Any

from trainer.checkpoint import write_whole
from trainer.config import BadInput, Depth, Model
from trainer.data.dataset import Splits
from trainer.data.formats import MADE, made_split
from trainer.model.detectors import build, count_stages

from .config import SearchConfig, read_yaml, stored, study_uri, write_yaml
from .disk import sweep
from .sampling import as_written
from .space import Space, apply, contains
from .study import Study, open_study

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
)
"""What a continued search may have differently."""


def refuse_changes(config: SearchConfig) -> None:
    """Raise BadInput with the differences when the folder holds a search of another config."""
    file = config.folder / "search.yaml"
    if not file.is_file():
        return
    before, now = _flat(read_yaml(file)), _flat(stored(config))
    errors = [
        f"{name}: {now.get(name, 'nothing')} (was {before.get(name, 'nothing')})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE)
    ]
    if not errors:
        return
    begun = any((config.folder / "trials").glob("*"))
    raise BadInput(
        [
            f"{config.folder} holds a search of this name with another configuration; give "
            "this one another --name, or undo"
            + ("" if begun else " (or delete it: no trial of it has begun)")
            + ":",
            *errors,
        ]
    )


def _flat(raw: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(raw, dict) or not raw:
        return {prefix.removesuffix("."): raw}
    return {
        k: v for name, inner in raw.items() for k, v in _flat(inner, f"{prefix}{name}.").items()
    }


def require_models(models: Iterable[Model], classes: int) -> None:
    """Build every model that trials may have, of its weights, before a folder holds a search of
    them. Raises BadInput with all that does not fit."""
    errors: list[str] = []
    for model in models:
        try:
            build(model, classes)
        except BadInput as error:
            errors += [line for line in error.errors if line not in errors]
    if errors:
        raise BadInput(errors)


def open_search(config: SearchConfig, space: Space, data: Splits) -> Study:
    """The study, with the trials that an earlier driver left, or with the first points.

    Raises BadInput when the data set has changed since it was begun, or when a database holds
    another search of this name.
    """
    settings = {"seed": config.search.seed, "trials": config.search.trials}
    study = open_study(config.folder, config.name, study_uri(config), **settings)
    if study.get("id") is not None and not (config.folder / "search.yaml").is_file():
        raise BadInput(
            [f"name: {config.name}: its study is there already, of a search in another folder"]
        )
    if study.get("data") not in (None, data.digest):
        raise BadInput([f"data: its content has changed since {config.folder} was begun"])
    write_whole(write_yaml(stored(config)).encode(), config.folder / "search.yaml")
    if data.made:
        write_whole(made_split(data), config.folder / MADE)
    if study.get("id") is None:
        study.set("data", data.digest)
        study.set("id", uuid.uuid4().hex)
    study.release_running()
    sweep(config.folder)
    if all(record.origin != "sampled" for record in study.records.values()):
        _enqueue_first(config, space, study)
    return study


def _enqueue_first(config: SearchConfig, space: Space, study: Study) -> None:
    """The configuration as written, the same with everything unfrozen, then the user's own."""
    points = [("as written", config), *(("first", apply(config, v)) for v in config.search.first)]
    everything: tuple[Depth, ...] = ("all", count_stages(config.model))
    for dimension in space:
        legal = [depth for depth in everything if contains(dimension, depth)]
        if dimension.name == "train.unfreeze.depth" and legal:
            points.insert(1, ("all unfrozen", apply(config, {dimension.name: legal[0]})))
    seen = [record.parameters for record in study.records.values()]
    for origin, point in points[: config.search.trials]:
        parameters = as_written(space, point)
        if parameters not in seen:
            seen.append(parameters)
            study.enqueue(parameters, origin)
