"""Reading a search that exists: its configuration from its folder, and its study."""

from pathlib import Path
from typing import Any

from trainer.config import InputError
from trainer.config_errors import parse

from ..space.config import SearchConfig
from ..space.config_file import CONFIG_FILE, RESTORE_HINT, read_yaml
from ..space.locations import study_uri
from .storage import read_study
from .study import Study


def read_search_config(name: str, storage: Path) -> SearchConfig:
    """The resolved config of a search, with the name and the storage that are given.

    Args:
        name: Of the search, which is its folder's name.
        storage: The folder of all searches.

    Raises:
        InputError: There is no search of this name, or its configuration is damaged.
    """
    folder = storage / name
    if Path(name).name != name or name == ".." or not (folder / CONFIG_FILE).is_file():
        known = ", ".join(list_searches(storage))
        raise InputError([f"no search {name} in {storage}; its searches: {known or 'none'}"])
    try:
        config = parse(SearchConfig, read_stored_config(folder))
    except InputError as error:
        lines = [line for line in error.errors if not line.startswith(str(folder))]
        raise InputError(
            [f"{folder / CONFIG_FILE}: {line}" for line in lines] or error.errors
        ) from None
    # the folder may be moved, renamed or copied since
    return config.model_copy(update={"storage": storage.resolve(), "name": name})


def list_searches(storage: Path) -> list[str]:
    """Names of the searches in a folder."""
    return sorted(file.parent.name for file in storage.glob(f"*/{CONFIG_FILE}"))


def read_stored_config(folder: Path) -> dict[str, Any]:
    """The raw configuration in a search's folder.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        return read_yaml(folder / CONFIG_FILE)
    except InputError as error:
        reason = (
            error.errors[0].removeprefix(str(folder / CONFIG_FILE)).partition(";")[0].lstrip(":, ")
        )
        raise InputError(
            [
                f"{folder / CONFIG_FILE} is damaged ({reason}); {RESTORE_HINT}. "
                "MLflow keeps a copy too"
            ]
        ) from None


def study_name(config: SearchConfig) -> str:
    """The name of a search's study: the name that the search had when it was new."""
    exists = (config.folder / CONFIG_FILE).is_file()
    return (
        str(read_stored_config(config.folder).get("name", config.name)) if exists else config.name
    )


def load_study(config: SearchConfig) -> Study:
    """The study of an existing search, for reading.

    Raises:
        InputError: There is no study, or it cannot be read.
    """
    # only what the search's folder says counts: UNFREEZE_STUDY may be of another search
    uri = study_uri(config) if config.study else None
    try:
        return read_study(config.folder, study_name(config), uri)
    except FileNotFoundError as error:
        raise InputError([str(error)]) from error
