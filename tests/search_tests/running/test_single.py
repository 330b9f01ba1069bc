"""One trial without Ray: recorded, tracked and exported like a search's."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient
from rich.console import Console

from search.ranking.results import SearchResult
from search.reporting.progress import Lines
from search.running.single import train
from search.running.trial import ENDS
from search.space.config import SearchConfig
from search.space.config_file import write_yaml
from search.space.validation import checked_config
from search.study.record import End
from search.study.search_state import SearchState
from search.study.storage import read_study
from trainer.config import InputError
from trainer.config_fields import set_field
from trainer.data.checks.overview import OVERVIEW

from ..conftest import SPACE, Trained

Make = Callable[..., Any]
NEWS = re.compile(r"trial 0 (epoch|finished) ")
"""Begins a line about an epoch, or about the trial's end."""


class Stops(Lines):
    """A person who presses Ctrl+C when this epoch is shown."""

    def __init__(self, epoch: int) -> None:
        self.out = io.StringIO()
        super().__init__(Console(file=self.out, width=200))
        self._epoch = epoch

    def update(self, number: int) -> None:
        super().update(number)
        if self._epoch in self._study.records[number].reports:
            raise KeyboardInterrupt


def lines() -> tuple[Lines, io.StringIO]:
    out = io.StringIO()
    return Lines(Console(file=out, width=200)), out


def changed(trained: Trained, **changes: Any) -> SearchConfig:
    raw = json.loads(json.dumps(trained.raw))
    for path, value in changes.items():
        set_field(raw, path.replace("__", "."), value)
    return checked_config(raw, Path())


def statuses(store: str, name: str) -> list[str]:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return sorted(run.info.status for run in client.search_runs([experiment.experiment_id]))


def test_it_trains_records_and_exports(trained: Trained) -> None:
    result: SearchResult = trained.result
    assert result.state == SearchState.DONE
    assert result.winner is not None and result.winner.record.number == 0
    record = result.winner.record
    assert record.end is End.FINISHED and record.origin == "as written"
    assert [(r.epoch, r.phase, r.depth) for r in record.reports.values()] == [
        (1, "head", 0),
        (2, "unfreeze", 2),
    ]
    assert (trained.winner / "model.safetensors").is_file()
    assert result.metrics["val"]["figures"].keys() >= {"map", "mar_100"}


def test_each_epoch_and_the_end_are_shown(trained: Trained) -> None:
    assert [line.split(":")[0] for line in trained.said if NEWS.match(line)] == [
        "trial 0 epoch 1 head depth 0",
        "trial 0 epoch 2 unfreeze depth 2",
        "trial 0 finished (1 of 1)",
    ]


def test_it_is_in_mlflow_like_a_search(trained: Trained, store: str) -> None:
    assert statuses(store, "once") == ["FINISHED", "FINISHED"]


def test_its_data_is_drawn_and_in_mlflow(trained: Trained, store: str) -> None:
    assert (trained.config.folder / OVERVIEW).is_file()
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("once")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`unfreeze.kind` = 'search'")
    assert OVERVIEW in [item.path for item in client.list_artifacts(parent.info.run_id)]


def test_the_same_command_again_shows_the_result_without_training(trained: Trained) -> None:
    progress, out = lines()
    again = train(trained.config, progress)
    assert "epoch" not in out.getvalue() and "exporting" not in out.getvalue()
    assert again.metrics == trained.result.metrics
    assert [row.record.reports for row in again.rows] == [
        row.record.reports for row in trained.result.rows
    ]


def test_it_computes_with_the_cores_that_a_trial_has(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    train(changed(trained, resources={"cpus_per_trial": 1}), lines()[0])
    assert threads == [1]


def test_a_changed_configuration_is_refused_with_the_difference(trained: Trained) -> None:
    with pytest.raises(InputError) as raised:
        train(changed(trained, train__unfreeze__lr=5e-3), lines()[0])
    assert raised.value.errors[1:] == ["train.unfreeze.lr: 0.005 (was 0.001)"]


def test_the_folder_of_a_search_is_refused_without_differences(
    make_search: Make,
) -> None:
    config = make_search({"space": SPACE})
    config.folder.mkdir(parents=True)
    (config.folder / "search.yaml").write_text(write_yaml(config.model_dump(mode="json")))
    with pytest.raises(InputError) as raised:
        train(config, lines()[0])
    assert raised.value.errors == [
        f"{config.folder} holds a search; give the one trial another --name"
    ]


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    make_search: Make, tmp_path: Path
) -> None:
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "a.pth")
    config = make_search({"name": "misfit", "model.weights": str(tmp_path / "a.pth")})
    with pytest.raises(InputError, match="does not fit tf_efficientnet_lite0"):
        train(config, lines()[0])
    assert not config.folder.exists()


def test_another_store_is_filled_in_once(trained: Trained, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'late.db'}"
    train(changed(trained, tracking=uri), lines()[0])
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("once")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted("unfreeze.trial" in run.data.tags for run in runs) == [False, True]
    (trial,) = (run for run in runs if "unfreeze.trial" in run.data.tags)
    history = client.get_metric_history(trial.info.run_id, "val/map")
    assert [row.step for row in history] == [1, 2]


def test_an_interrupted_trial_continues_after_its_last_epoch(make_search: Make, store: str) -> None:
    config = make_search({"name": "stopped", "tracking": store, "train.unfreeze.epochs": 1})
    with pytest.raises(KeyboardInterrupt):
        train(config, Stops(1))
    record = read_study(config.folder, "stopped").records[0]
    assert (list(record.reports), record.end) == ([1], None)
    assert "RUNNING" not in statuses(store, "stopped")

    progress = Stops(2)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress)
    printed = [line.split(":")[0] for line in progress.out.getvalue().splitlines()]
    assert list(filter(NEWS.match, printed)) == ["trial 0 epoch 2 unfreeze depth 2"]
    again = read_study(config.folder, "stopped").records[0]
    assert list(again.reports) == [1, 2]
    assert again.reports[1] == record.reports[1]
    assert again.times[1] == record.times[1]


@pytest.mark.parametrize("error", ENDS)
def test_an_exception_that_the_configuration_causes_ends_the_trial(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: Any) -> None:
        raise error("why")

    monkeypatch.setattr("search.running.single.fit", fail)
    result = train(make_search({"tracking": "off"}), lines()[0])
    (row,) = result.rows
    assert (row.record.end, row.record.text) == (ENDS[error], "why")
    assert result.state == "done" and result.winner is None
