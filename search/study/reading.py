"""A search that was begun: what its folder and its study say."""

from pathlib import Path
from typing import Any

from trainer.config import BadInput, parse

from ..space.config import BRING_BACK, KEPT, SearchConfig, read_yaml, study_uri
from .study import Study, read_study


def read_search(name: str, storage: Path) -> SearchConfig:
    """The resolved config of a search. Raises BadInput when there is none of this name."""
    folder = storage / name
    if Path(name).name != name or name == ".." or not (folder / KEPT).is_file():
        known = ", ".join(begun(storage))
        raise BadInput([f"no search {name} in {storage}; there: {known or 'none'}"])
    try:
        config = parse(SearchConfig, kept(folder))
    except BadInput as error:
        lines = [line for line in error.errors if not line.startswith(str(folder))]
        raise BadInput([f"{folder / KEPT}: {line}" for line in lines] or error.errors) from None
    # a folder that was moved, renamed or copied since holds its search all the same
    return config.model_copy(update={"storage": storage.resolve(), "name": name})


def begun(storage: Path) -> list[str]:
    """Names of the searches in a folder."""
    return sorted(file.parent.name for file in storage.glob(f"*/{KEPT}"))


def kept(folder: Path) -> dict[str, Any]:
    """The raw config that a search's folder keeps. Raises BadInput where it is damaged."""
    try:
        return read_yaml(folder / KEPT)
    except BadInput as error:
        reason = error.errors[0].removeprefix(str(folder / KEPT)).partition(";")[0].lstrip(":, ")
        raise BadInput(
            [f"{folder / KEPT} is damaged ({reason}); {BRING_BACK}. MLflow keeps a copy too"]
        ) from None


def study_name(config: SearchConfig) -> str:
    """The name that a search's study has: of a renamed folder the one that it was begun with."""
    there = (config.folder / KEPT).is_file()
    return str(kept(config.folder).get("name", config.name)) if there else config.name


def begun_study(config: SearchConfig) -> Study:
    """The study of a search that was begun, for reading. Raises BadInput when it is not there."""
    # what the search's folder says counts: a URL in the environment may be for another search
    uri = study_uri(config) if config.study else None
    try:
        return read_study(config.folder, study_name(config), uri)
    except FileNotFoundError as error:
        raise BadInput([str(error)]) from error
