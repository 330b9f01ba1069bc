"""Unfreeze from Python: check a data set, search, look at the trials, and use the winner.

    import unfreeze

    search = unfreeze.search("DATA", trials=12)
    search.best.predict("picture.jpg").show()

It does what the `unfreeze` command does, with the same folders and files.
"""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

import optuna
import pandas as pd

from clusters.definitions import ClusterConnectionError
from search.commands.check import describe_findings, examine_data, model_of
from search.commands.init import choose_search, folder_name
from search.exports.model import Model, Prediction
from search.exports.model_location import find_model
from search.ranking.results import SearchResult, to_frame
from search.reporting import summary
from search.reporting.console import plain_text
from search.reporting.progress import Progress, Quiet
from search.reporting.report import read_result
from search.reporting.status import current_state
from search.space.config import STORAGE, SearchConfig
from search.space.config_file import apply_settings, read_config, read_yaml
from search.space.data import check_config_and_data, find_data
from search.study.lock import SearchBusyError
from search.study.reading import load_study, read_search_config
from trainer.config import InputError
from trainer.data.checks.examine import Examined
from trainer.data.findings import Finding
from trainer.text.yaml import load_yaml

__all__ = [
    "Check",
    "ClusterConnectionError",
    "InputError",
    "Model",
    "Prediction",
    "Search",
    "SearchBusyError",
    "SearchConfig",
    "check",
    "load",
    "open_search",
    "search",
    "train",
]

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported

AnyPath = str | os.PathLike[str]
Source = AnyPath | Mapping[str, Any] | SearchConfig | None
"""A data set, a YAML file of a search, the content of such a file, or a configuration."""
DIGITS: Literal["digits"] = "digits"
"""The name of the embedded data set."""

# -- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """What a data set holds, and everything that is wrong with it. Printed, it is a report."""

    examined: Examined

    @property
    def ok(self) -> bool:
        """Whether it can be trained on."""
        return not self.examined.errors

    @property
    def findings(self) -> list[Finding]:
        """Errors, warnings and notes, each with its code, its split and its places."""
        return list(self.examined.findings)

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a training."""
        return self.examined.errors

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return [category.name for category in self.examined.categories]

    @property
    def splits(self) -> dict[str, dict[str, int]]:
        """Number of `pictures` and `boxes` of each split."""
        return self.examined.counts

    @property
    def files(self) -> dict[str, list[Path]]:
        """The pictures of each split that can be used; empty if they were not decoded."""
        splits = self.examined.splits.items()
        return {name: [picture.file for picture in split.pictures] for name, split in splits}

    def __str__(self) -> str:
        return plain_text(lambda console: describe_findings(self.examined, console))

    def _repr_html_(self) -> str:
        return _as_html(str(self))


def check(
    data: AnyPath, *, allow: Sequence[str] = (), images: Sequence[str] = (), pictures: bool = True
) -> Check:
    """Find everything that is wrong with a data set, like `unfreeze check`.

    Args:
        data: A COCO json, a YOLO data.yaml, a folder of COCO, Pascal VOC or YOLO, or a search's
            YAML; `digits` is the embedded data set.
        allow: Codes of errors that are none in this data set.
        images: Folders of the pictures where they do not lie beside the annotations, each DIR or
            SPLIT=DIR.
        pictures: Whether to decode every picture too.

    Raises:
        InputError: There is no data set.
    """
    place = Path(data)
    chosen = DIGITS if _is_embedded(data) else find_data(place)
    return Check(examine_data(chosen, allow, images, pictures, model_of(place)))


# -- searches -------------------------------------------------------------------------------------


class Search:
    """A search that has run, or that another process runs: each access reads it anew."""

    config: SearchConfig
    """The configuration, with every default filled in."""

    def __init__(self, config: SearchConfig) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """Its name, which is its folder's."""
        return self.config.name

    @property
    def folder(self) -> Path:
        """The folder of its study, its trials, its report and its winner."""
        return self.config.folder

    @property
    def report(self) -> Path:
        """The page that shows what won and why."""
        return self.config.report

    @property
    def state(self) -> str:
        """`done`, `out of time`, `stopped`, `interrupted`, `failed`, `disk full` or `running`."""
        return self._result().state

    @property
    def study(self) -> optuna.Study:
        """The Optuna study: parameters and values of every trial, for Optuna's functions."""
        return load_study(self.config).optuna

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial, best first; the index is the trial's number.

        Columns: `rank`, `state`, `map`, `map_50` and `map_75` of the best epoch on val,
        `best_epoch`, `epochs`, `seconds`, `confirms`, and every searched field.
        """
        return to_frame(self._result())

    @property
    def best(self) -> "Model":
        """The winner.

        Raises:
            InputError: The search has no winner.
        """
        return load(self.name, storage=self.config.storage)

    def _result(self) -> SearchResult:
        study = load_study(self.config)
        state = current_state(self.config, study.state)
        return replace(read_result(self.config, study), state=state)

    def __repr__(self) -> str:
        result = self._result()
        best = f", best AP {result.winner.score:.3f}" if result.winner else ""
        return f"<Search {self.name}: {result.state}, {len(result.rows)} trials{best}>"

    def __str__(self) -> str:
        return plain_text(lambda console: summary.describe_result(self._result(), console))

    def _repr_html_(self) -> str:
        return _as_html(str(self))


def search(
    source: Source = None,
    *,
    name: str | None = None,
    trials: int | None = None,
    cluster: str | None = None,
    settings: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    quiet: bool = False,
) -> Search:
    """Search, or continue a search, like `unfreeze search`.

    A data set is searched with the configuration that `unfreeze init` writes for it. The same call
    continues an interrupted search, and returns at once where the search is complete.

    Args:
        source: A data set, a search's YAML, its content, or a configuration; None or `digits`
            searches the embedded digits.
        name: Of the search and its folder; by default the YAML's, else its file's or the data
            set's folder's.
        trials: How many trials to run in all.
        cluster: `local`, `auto`, a head's address, or a definition's name.
        settings: Values by dotted field, such as {"train.unfreeze.depth": 2}; they override the
            source's.
        allow: Codes of errors in the data set that are none.
        quiet: Whether to show no progress.

    Raises:
        InputError: Something in the configuration or the data set is wrong; nothing was started.
        SearchBusyError: Another process runs this search.
        ClusterConnectionError: The cluster does not answer.
    """
    from search.running import driver  # Ray, which nothing else here needs

    progress = Quiet() if quiet else summary.progress()
    given = {"search.trials": trials, "cluster": cluster}
    config = _to_config(source, name, given, settings, allow, progress)
    driver.run(config, progress)
    return open_search(config.name, storage=config.storage)


def train(
    source: Source = None,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
    quiet: bool = False,
) -> Search:
    """Train one configuration without Ray, like `unfreeze train`.

    The result is a search with a single trial. The arguments and errors are those of `search`;
    by default the name of a data set's training ends in `-train`.
    """
    from search.running import single  # MLflow, which nothing else here needs

    if name is None and isinstance(source, str | os.PathLike) and not _is_embedded(source):
        name = f"{folder_name(Path(source))}-train" if _is_data(Path(source)) else None
    progress = Quiet() if quiet else summary.lines()
    given = {"search.asha": "off"}
    config = _to_config(source, name, given, settings, allow, progress, without_space=True)
    single.train(config, progress)
    return open_search(config.name, storage=config.storage)


def open_search(name: str, *, storage: AnyPath = STORAGE) -> Search:
    """A search that has run, or that runs, by its name.

    Args:
        name: Of the search.
        storage: The folder of all searches.

    Raises:
        InputError: There is no search of this name.
    """
    return Search(read_search_config(name, Path(storage)))


def _to_config(
    source: Source,
    name: str | None,
    given: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    allow: Sequence[str],
    progress: Progress,
    *,
    without_space: bool = False,
) -> SearchConfig:
    """The checked configuration of a source, with what was given over it."""
    changes = {**(settings or {}), **{k: v for k, v in given.items() if v is not None}}
    folder = Path()
    if source is None or _is_embedded(source):
        raw = read_config(None, {})
    elif isinstance(source, SearchConfig):
        raw = source.model_dump(mode="json", exclude_unset=True)
    elif isinstance(source, Mapping):
        raw = deepcopy(dict(source))
    elif _is_data(Path(source)):
        chosen = choose_search(Path(source), Path.cwd(), name, allow)
        for note in chosen.notes:
            progress.say(note)
        raw = load_yaml(chosen.text)
    else:
        raw = read_config(Path(source), {})
        folder = Path(source).parent
    apply_settings(raw, changes)
    if name is not None:
        raw["name"] = name
    return check_config_and_data(raw, folder, allow, without_space=without_space)


def _is_embedded(source: object) -> bool:
    """Whether the embedded data set is meant, and no folder of its name."""
    return source == DIGITS and not Path(DIGITS).exists()


def _is_data(place: Path) -> bool:
    """Whether a path is a data set, and not the YAML of a search."""
    if place.suffix.lower() not in {".yaml", ".yml"}:
        return True
    raw = read_yaml(place)
    return "names" in raw and "data" not in raw


# -- models ---------------------------------------------------------------------------------------


def load(model: AnyPath, *, storage: AnyPath = STORAGE) -> Model:
    """A trained model: the winner of a search, by its name, or an exported folder or file.

    Args:
        model: Name, folder or file.
        storage: The folder of all searches.

    Raises:
        InputError: There is no such model.
    """
    return Model(find_model(str(model), Path(storage)).absolute())


def _as_html(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"
