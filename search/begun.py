"""A search that was begun: what its folder and its study say."""

from pathlib import Path

from trainer.config import BadInput, parse

from .config import SearchConfig, read_yaml, study_uri
from .study import Study, read_study


def read_search(name: str, storage: Path) -> SearchConfig:
    """The resolved config of a search. Raises BadInput when there is none of this name."""
    file = storage / name / "search.yaml"
    if not file.is_file():
        known = sorted(f.parent.name for f in storage.glob("*/search.yaml"))
        raise BadInput([f"no search {name} in {storage}; there: {', '.join(known) or 'none'}"])
    config = parse(SearchConfig, read_yaml(file))
    # a folder that was moved since holds its search all the same
    return config.model_copy(update={"storage": storage.resolve()})


def begun_study(config: SearchConfig) -> Study:
    """The study of a search that was begun, for reading. Raises BadInput when it is not there."""
    # what the search's folder says counts: a URL in the environment may be for another search
    uri = study_uri(config) if config.study else None
    try:
        return read_study(config.folder, config.name, uri)
    except FileNotFoundError as error:
        raise BadInput([str(error)]) from error
