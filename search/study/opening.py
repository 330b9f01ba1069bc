"""Opening a search: the folder and the study of a new one, or of one that is continued."""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.config import BadInput, Depth, Model, parse
from trainer.data.dataset import Splits
from trainer.data.loading import MADE, made_split
from trainer.model.checkpoint import write_whole
from trainer.model.detectors import build, count_stages
from trainer.text.redaction import redacted

from ..space.config import BRING_BACK, KEPT, SearchConfig, stored, study_uri, write_yaml
from ..space.sampling import as_written
from ..space.space import Space, apply, contains
from .disk import sweep
from .journal import JOURNAL
from .reading import kept, study_name
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
    "name",  # its folder has another by now, where it was found
)
"""What a continued search may have differently."""


def refuse_changes(config: SearchConfig) -> None:
    """Raise BadInput with the differences when the folder holds a search of another config."""
    if not (config.folder / KEPT).is_file():
        return
    before, now = _flat(_completed(kept(config.folder))), _flat(stored(config))
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


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """A stored config with the defaults of fields that there were none of when it was written."""
    try:
        return parse(SearchConfig, raw).model_dump(mode="json")
    except BadInput:  # of a field that is gone
        return raw


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
    """The study, with the trials that an earlier driver left, or with the first points; to be
    called by who holds the folder, for it is compared with what is there now.

    Raises BadInput when the folder holds a search of another config, when the data set has changed
    since it was begun, or when the study is another folder's.
    """
    refuse_changes(config)
    settings = {"seed": config.search.seed, "trials": config.search.trials}
    name, uri = study_name(config), study_uri(config)
    study = open_study(config.folder, name, uri, **settings)
    _refuse_another(config, study, uri)
    if study.get("data") not in (None, data.digest):
        raise BadInput([f"data: its content has changed since {config.folder} was begun"])
    content = {k: v for k, v in stored(config).items() if k != "storage"} | {"name": name}
    write_whole(write_yaml(content).encode(), config.folder / KEPT)
    if uri is not None:
        study.set("folder", str(config.folder))
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


def _refuse_another(config: SearchConfig, study: Study, uri: str | None) -> None:
    """Raise BadInput where a study is not the one of this folder."""
    folder, begun = config.folder, study.get("id") is not None
    where = redacted(uri) if uri is not None else folder / JOURNAL
    if begun and not (folder / KEPT).is_file():
        missing = f"{folder / KEPT} is missing; {BRING_BACK}"
        elsewhere = (
            f"name: {config.name}: its study is there already, of a search in another folder"
        )
        raise BadInput([missing if uri is None else elsewhere])
    if not begun and any((folder / "trials").glob("*")):
        raise BadInput([f"{where} holds nothing of the trials in {folder}; {BRING_BACK}"])
    other = Path(study.get("folder", folder))
    if uri is not None and (other / KEPT).is_file() and not other.samefile(folder):
        raise BadInput(
            [
                f"{folder} is a copy of {other}, and both have one study, in {where}: go on in "
                "that folder, or begin anew under another --name"
            ]
        )


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
