"""A small search with real Ray, Optuna and MLflow, and what is kept of it for the tests."""

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from rich.console import Console

from search.commands.cli import main
from search.ranking.results import SearchResult
from search.reporting.progress import Lines
from search.running.driver import run
from search.space.config import Confirm, SearchConfig
from search.space.config_file import write_yaml
from search.space.validation import checked_config
from search.study.record import TrialRecord
from search.study.storage import read_study
from search.study.study import Study
from trainer.config import InputError, TrainConfig
from trainer.config_fields import set_field

from .conftest import SPACE

Make = Callable[..., Any]


@dataclass(frozen=True)
class Searched:
    """A search of three trials, the same again, then with a fourth trial and with confirmation."""

    config: SearchConfig
    first: SearchResult
    said: list[str]
    again: str
    """What the same command printed."""
    between: dict[int, TrialRecord]
    """The record after it."""
    refusal: list[str]
    winner: Path
    """What was exported at first."""
    extended: SearchResult
    study: Study
    runs: dict[int, Run]
    parent: Run

    @property
    def confirming(self) -> list[TrialRecord]:
        """The confirming runs: one where the configuration as written is the best, else two."""
        return [r for r in self.study.records.values() if r.confirms is not None]

    def history(self, number: int, key: str) -> list[tuple[int, float]]:
        client = MlflowClient(str(self.config.tracking))
        rows = client.get_metric_history(self.runs[number].info.run_id, key)
        return [(row.step, row.value) for row in rows]

    def trained(self, number: int) -> TrainConfig:
        """The configuration of a trial, as the sampled values say."""
        raw = self.config.model_dump(include={"model", "train"})
        for name, value in self.study.records[number].parameters.items():
            set_field(raw, name, value)
        return TrainConfig.model_validate(raw)


def searching(config: SearchConfig) -> tuple[SearchResult, list[str]]:
    out = io.StringIO()
    result = run(config, Lines(Console(file=out, width=200)))
    return result, out.getvalue().splitlines()


def search_and_extend(make_raw: Make, store: str, place: Path) -> Searched:
    """Run the search in a folder, again, with a changed field, and extended."""
    raw = _raw(make_raw, store)
    file = place / "small.yaml"
    file.write_text(write_yaml(raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        config = checked_config(raw, place)
        first, said = searching(config)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["search", str(file)]) == 0
        between = read_study(config.folder, config.name).records
        with pytest.raises(InputError) as refused:
            set_field(raw, "train.unfreeze.lr", 2e-3)
            run(checked_config(raw, place))
        keep = shutil.copytree(config.folder / "winner", place / "winner")
        more = config.search.model_copy(update={"trials": 4, "confirm": Confirm(top=1, seeds=1)})
        extended, _ = searching(config.model_copy(update={"search": more}))
        study = read_study(config.folder, config.name)
    trials, parent = _runs(store)
    return Searched(
        config,
        first,
        said,
        out.getvalue(),
        between,
        refused.value.errors,
        keep,
        extended,
        study,
        trials,
        parent,
    )


def _raw(make_raw: Make, store: str) -> dict[str, Any]:
    """Three trials on a tiny canvas."""
    raw: dict[str, Any] = make_raw(
        {
            "name": "small",
            "tracking": store,
            "train.unfreeze.epochs": 2,
            "train.unfreeze.lr": 4e-3,
            "space": SPACE
            | {
                # sampled trials learn more slowly than trials 0 and 1, so one of these wins
                "train.unfreeze.lr": {"log": [1e-5, 4e-3]},
                "train.unfreeze.weight_decay": {"log": [1e-6, 1e-2]},
            },
            "search.trials": 3,
            "search.asha.reduction_factor": 2,
            "resources": {"cpus_per_trial": 1},
        }
    )
    return raw


def _runs(store: str) -> tuple[dict[int, Run], Run]:
    """The trials' runs by number, and the search's."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    trials = {
        int(r.data.tags["unfreeze.trial"]): r for r in runs if "unfreeze.trial" in r.data.tags
    }
    (parent,) = [r for r in runs if "unfreeze.trial" not in r.data.tags]
    assert len(runs) == 1 + len(trials)
    return trials, parent
