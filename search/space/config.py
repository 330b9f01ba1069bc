"""The fields of a search's configuration: what a user writes in search.yaml."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from trainer.config import Config, Data, NotBool, TrainConfig

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Seconds of each unit of a duration."""
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
"""Bytes of each unit of a size."""
ACCELERATOR_PREFIX = "accelerator_type:"
"""Begins Ray's resource name for a kind of GPU."""

STORAGE = Path("searches")
"""The folder of all searches, in the working folder, where a configuration names no other."""


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)
        if not match:
            raise ValueError("is not a duration; write a number and s, m, h or d, as in 90m")
        return float(match[1]) * UNITS[match[2]]
    return value


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT]B)\s*", value)
        if not match:
            raise ValueError("is not a size; write a number and MB, GB or TB, as in 10GB")
        return float(match[1]) * BYTES[match[2]]
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
        raise ValueError(
            "names a folder: up to 100 letters, digits, _, . and -, a letter or digit first"
        )
    return value


class Asha(Config):
    """When ASHA stops weak trials."""

    grace_period: Annotated[int, Field(ge=1, le=1000), NotBool] = 3
    """Unfreeze epochs before the first comparison; the first rung."""
    reduction_factor: Annotated[int, Field(ge=2, le=100), NotBool] = 3
    """About one in this many trials continues after each rung; rungs grow by the same factor."""


class Confirm(Config):
    """Which configurations are trained again with other seeds, since the best is partly luck.

    These are the best configurations and the baseline, the one in this file. Two seeds can tell
    a large gain from luck; one seed cannot.
    """

    top: Annotated[int, Field(ge=1, le=100), NotBool] = 2
    """How many configurations: the best of those that ran all their epochs."""
    seeds: Annotated[int, Field(ge=1, le=100), NotBool] = 1
    """How many further seeds for each: those that follow `train.seed`."""


class Search(Config):
    """How many trials, for how long, and which first."""

    trials: Annotated[int, Field(ge=1, le=100_000), NotBool] = 32
    """How many trials."""
    time_budget: Annotated[float | None, Field(gt=0), BeforeValidator(_seconds)] = None
    """Seconds, or a number with s, m, h or d, from the start of the command. Then running trials
    stop; they continue when the search is continued."""
    seed: Annotated[int, Field(ge=0, lt=2**31), NotBool] = 0
    """Seed of the sampler."""
    asha: Asha | Literal["off"] = Asha()
    """Early stopping by ASHA, or `off`."""
    confirm: Confirm | Literal["off"] = Confirm()
    """Which configurations are trained again with other seeds, or `off`."""
    max_failed_trials: Annotated[int | None, Field(ge=0), NotBool] = None
    """How many trials may end in an error or be lost; one more stops the search."""
    hang_timeout: Annotated[float, Field(gt=0), BeforeValidator(_seconds)] = 600
    """Seconds, or a number with a unit. A worker that takes longer for one step writes its stacks
    and exits; its trial is tried again. The first step may take an hour, or this if it is more."""
    disk_cap: Annotated[float, Field(ge=0), BeforeValidator(_bytes)] = 10e9
    """Bytes, or a number with MB, GB or TB, for the best checkpoints of ended trials. The worst
    trials' are deleted first, the best trial's never. Finished phases may take as much again."""
    first: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations to try first; each is dotted fields that change the baseline."""


def _one_gpu(value: Any) -> Any:
    if isinstance(value, int | float) and value > 1:
        raise ValueError(
            "a trial trains on one GPU for now; more GPUs run more trials at once (legal: 0 to 1)"
        )
    return value


class TrialResources(Config):
    """The resources of one trial."""

    cpus_per_trial: Annotated[float, Field(gt=0, le=4096), NotBool] = 1
    """CPU cores; a trial has as many threads."""
    gpus_per_trial: Annotated[float, Field(ge=0, le=1), NotBool, BeforeValidator(_one_gpu)] = 0
    """A GPU, or a fraction of one."""
    accelerator_type: str | None = None
    """The kind of GPU, as Ray names it: A100, H100, L4; `ray status -v` lists the cluster's."""
    custom_per_trial: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Custom resources by name, as nodes were started with (`ray start --resources`)."""

    @property
    def others(self) -> dict[str, float]:
        """The resources besides CPUs and GPUs, by Ray's names."""
        kind = (
            {f"{ACCELERATOR_PREFIX}{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        )
        return kind | self.custom_per_trial


class SearchConfig(TrainConfig):
    """The configuration of one search."""

    name: Annotated[str, AfterValidator(_name)]
    """Name of the search, its folder and its MLflow experiment."""
    data: Data | Literal["digits"]
    """The data set; `digits` is the embedded one."""
    space: dict[str, Any] = Field(default_factory=dict)
    """The dimensions that are searched, by dotted field."""
    search: Search = Search()
    resources: TrialResources | Literal["auto"] = "auto"
    """Resources of one trial. `auto` is a GPU where the cluster has GPUs, or the fraction of one
    that its memory needs; else a part of the CPU cores."""
    cluster: str = "local"
    """`local`, `auto` (the cluster this machine belongs to), the address of a head node, or a
    definition: the name of one in clusters/, or a file like those."""
    study: str | None = None
    """SQLAlchemy URL of a database for the study; else UNFREEZE_STUDY, else a journal file in the
    search's folder."""
    tracking: str | None = None
    """MLflow tracking URI; else MLFLOW_TRACKING_URI, else SQLite in the working folder."""
    register_model: bool = True
    """Whether the winner becomes a version of `models:/NAME` in MLflow."""
    storage: Path = STORAGE
    """Folder of all searches; all nodes of a cluster must share it."""

    @property
    def folder(self) -> Path:
        """The folder of this search."""
        return self.storage / self.name

    @property
    def report(self) -> Path:
        """The file of its report."""
        return self.folder / "report.html"
