"""A whole search: the YAML that a user writes, and where its paths lead."""

import io
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from ruamel.yaml import YAML

from trainer.config import NAMED_WEIGHTS, BadInput, Config, Data, Number, TrainConfig, override
from trainer.text.redaction import HIDDEN, redacted
from trainer.text.yaml import NoYaml, load_yaml

DEFAULT = Path(__file__).parent / "default.yaml"
"""The embedded default search."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
KEPT, LOCK = "search.yaml", "driver.lock"
"""In every search's folder: its resolved config, and what its driver holds."""
BRING_BACK = "bring it back from a copy, or begin anew under another --name"
"""What to do where one of a search's files is lost."""
STUDY_VARIABLE = "UNFREEZE_STUDY"
"""Environment variable of the study's URL, for one with a password."""


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)
        if not found:
            raise ValueError("is no duration; write a number and s, m, h or d, as in 90m")
        return float(found[1]) * UNITS[found[2]]
    return value


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT]B)\s*", value)
        if not found:
            raise ValueError("is no size; write a number and MB, GB or TB, as in 10GB")
        return float(found[1]) * BYTES[found[2]]
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
        raise ValueError(
            "names a folder: up to 100 letters, digits, _, . and -, a letter or digit first"
        )
    return value


class Asha(Config):
    """When weak trials are stopped."""

    grace_period: Annotated[int, Field(ge=1, le=1000), Number] = 3
    """Unfreeze epochs before the first comparison; the first rung."""
    reduction_factor: Annotated[int, Field(ge=2, le=100), Number] = 3
    """At each rung about one in this many goes on; rungs grow by the same factor."""


class Confirm(Config):
    """The best configurations, and the one as written, are trained again with other seeds: the best
    is partly luck. Two seeds tell a large gain from luck, one tells none."""

    top: Annotated[int, Field(ge=1, le=100), Number] = 2
    """Configurations, the best of those that ran all their epochs."""
    seeds: Annotated[int, Field(ge=1, le=100), Number] = 1
    """Further seeds for each: those that follow `train.seed`."""


class Search(Config):
    """How many trials, for how long, and which first."""

    trials: Annotated[int, Field(ge=1, le=100_000), Number] = 32
    """Trials in all."""
    time_budget: Annotated[float | None, Field(gt=0), BeforeValidator(_seconds)] = None
    """Seconds, or a number with s, m, h or d, from the start of the command; what runs then stops,
    and goes on when the search is continued."""
    seed: Annotated[int, Field(ge=0, lt=2**31), Number] = 0
    """Seed of the sampler."""
    asha: Asha | Literal["off"] = Asha()
    """Early stopping by ASHA, or `off`."""
    confirm: Confirm | Literal["off"] = Confirm()
    """Which configurations are trained again with other seeds, or `off`."""
    max_failed_trials: Annotated[int | None, Field(ge=0), Number] = None
    """Trials that may end in an error or be lost; one more stops the search."""
    hang_timeout: Annotated[float, Field(gt=0), BeforeValidator(_seconds)] = 600
    """Seconds, or as above, without a step after which a worker dumps its stacks and dies; its
    trial is tried again. To the first step it has an hour, if this is not more."""
    disk_cap: Annotated[float, Field(ge=0), BeforeValidator(_bytes)] = 10e9
    """Bytes, or a number with MB, GB or TB, that best checkpoints of ended trials may take; the
    worst trials' go first, the best trial's never. Finished phases may take as much again."""
    first: list[dict[str, Any]] = []
    """Configurations to try first, each as dotted fields over the one as written."""


def _one_gpu(value: Any) -> Any:
    if isinstance(value, int | float) and value > 1:
        raise ValueError(
            "a trial trains on one GPU for now; more GPUs run more trials at once (legal: 0 to 1)"
        )
    return value


KIND = "accelerator_type:"
"""Begins Ray's name for a kind of GPU."""


class Resources(Config):
    """What one trial takes of the cluster."""

    cpus_per_trial: Annotated[float, Field(gt=0, le=4096), Number] = 1
    """CPU cores; also the trial's threads."""
    gpus_per_trial: Annotated[float, Field(ge=0, le=1), Number, BeforeValidator(_one_gpu)] = 0
    """A GPU, or a fraction of one."""
    accelerator_type: str | None = None
    """The kind of GPU, as Ray names it: A100, H100, L4; `ray status -v` says what there is."""
    custom_per_trial: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom resources that nodes were started with (`ray start --resources`), by name."""

    @property
    def others(self) -> dict[str, float]:
        """What is neither CPU nor GPU, under Ray's names."""
        kind = {f"{KIND}{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return kind | self.custom_per_trial


class SearchConfig(TrainConfig):
    """Everything about one search."""

    name: Annotated[str, AfterValidator(_name)]
    """Of the search, its folder and its MLflow experiment."""
    data: Data | Literal["digits"]
    """The pictures; `digits` is the embedded data set."""
    space: dict[str, Any] = {}
    """What is searched, by dotted field."""
    search: Search = Search()
    resources: Resources | Literal["auto"] = "auto"
    """Of a trial; `auto` is a GPU where the cluster has one, or what of it its memory asks for,
    else a share of the cores."""
    cluster: str = "local"
    """`local`, `auto` (the cluster this machine belongs to), a head's address, or a definition:
    the name of one in clusters/, or a file like those."""
    study: str | None = None
    """URL of a database for the study, as SQLAlchemy writes them; without it UNFREEZE_STUDY, else a
    journal file in the search's folder."""
    tracking: str | None = None
    """MLflow tracking URI; without it MLFLOW_TRACKING_URI, else SQLite beside the searches."""
    register_model: bool = True
    """Whether the winner becomes a version of `models:/NAME` in MLflow."""
    storage: Path = Path("searches")
    """Folder of all searches; shared by all nodes of a cluster."""

    @property
    def folder(self) -> Path:
        """Of this search."""
        return self.storage / self.name

    @property
    def report(self) -> Path:
        """The page that tells of it."""
        return self.folder / "report.html"


def trial_folder(search: Path, number: int) -> Path:
    """Where a trial of the search in this folder keeps its checkpoints."""
    return search / "trials" / str(number)


def tracking_uri(uri: str | None) -> str:
    """An MLflow tracking URI, else MLFLOW_TRACKING_URI, else SQLite in the working folder."""
    return _absolute_uri(uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")


def study_uri(config: SearchConfig) -> str | None:
    """The URL of the study's database; None for the journal in the search's folder.

    Raises BadInput where a search was begun with a password that the environment lacks now.
    """
    given = os.environ.get(STUDY_VARIABLE)
    uri = config.study or given
    if uri is None:
        return None
    if HIDDEN in uri:
        if given is None or redacted(given) != uri:
            raise BadInput([f"study: {uri}: set {STUDY_VARIABLE} to it, with its password"])
        uri = given
    return _absolute_uri(uri)


def _absolute_uri(uri: str) -> str:
    prefix = "sqlite:///"
    if uri.startswith(prefix):
        return prefix + str(Path(uri.removeprefix(prefix)).resolve())
    return uri


def stored(config: SearchConfig) -> dict[str, Any]:
    """The config as a search's folder keeps it: plain values, and no password."""
    raw = config.model_dump(mode="json")
    uri = study_uri(config)
    raw["study"] = redacted(uri) if uri else None
    # with the folder and the environment of this command: another's would name another store
    raw["tracking"] = redacted(tracking_uri(config.tracking))
    return raw


def read(file: Path | None, sets: list[str], name: str | None = None) -> dict[str, Any]:
    """The raw values of a YAML file (or the embedded default), with `a.b=c` settings over them.

    Raises BadInput.
    """
    raw = read_yaml(file or DEFAULT)
    if file is not None and file.name == KEPT and (file.parent / LOCK).is_file():
        folder = file.parent.resolve()  # which may have been renamed since, or be a copy
        raw |= {"name": folder.name, "storage": str(folder.parent)}
    elif file is not None:
        raw.setdefault("name", file.stem)
    for setting in sets:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise BadInput([f"--set {setting}: write it as dotted.field=value"])
        value = _yaml(text, f"--set {setting}")
        if path.startswith("space."):  # a dimension's own name is dotted
            raw["space"] = {**(raw.get("space") or {}), path.strip()[len("space.") :]: value}
        else:
            override(raw, path.strip(), value)
    if name is not None:
        raw["name"] = name
    return raw


def read_yaml(file: Path) -> dict[str, Any]:
    """The content of a YAML 1.2 file of keys. Raises BadInput."""
    if not file.is_file():
        raise BadInput([f"{file}: no such file; `unfreeze init DATA` writes one"])
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput([f"{file}: is not UTF-8 text"]) from None
    raw = _yaml(text, str(file))
    if not isinstance(raw, dict):
        raise BadInput([f"{file}: holds no keys; `unfreeze init DATA` writes an example"])
    return raw


def _yaml(text: str, place: str) -> Any:
    try:
        return load_yaml(text)
    except NoYaml as error:
        line = f", line {error.line}" if error.line else ""
        raise BadInput([f"{place}{line}: {error.problem}"]) from None


def write_yaml(raw: dict[str, Any]) -> str:
    """Plain values as YAML text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(raw, stream)
    return stream.getvalue()


def absolute(config: SearchConfig, beside: Path) -> SearchConfig:
    """The config with absolute paths: `data` and `weights` were relative to `beside`, the YAML's
    folder; `storage` to the working folder."""
    data = config.data
    weights = _absolute_weights(config.model.weights, beside)
    return config.model_copy(
        update={
            "data": absolute_data(data, beside) if isinstance(data, Data) else data,
            "model": config.model.model_copy(update={"weights": weights}),
            "space": _absolute_space(config.space, beside),
            "storage": config.storage.resolve(),
        }
    )


def _absolute_weights(weights: Any, beside: Path) -> Any:
    if weights in NAMED_WEIGHTS or not isinstance(weights, str):
        return weights
    return str(_absolute(beside / weights))


def _absolute_space(space: dict[str, Any], beside: Path) -> dict[str, Any]:
    """A space with the files among its weights absolute; what is malformed stays as it is."""
    found = {}
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
        found[name] = {"choice": choices} if choices is not None else spec
    return found


def _absolute(path: Path) -> Path:
    """Links stay: by its own name and place a file tells what it is and where its pictures lie."""
    return Path(os.path.abspath(path))


def absolute_data(data: Data, beside: Path) -> Data:
    """The data part with absolute paths; they were relative to `beside`."""
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
