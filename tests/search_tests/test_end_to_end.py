"""A small search with real Ray, Optuna and MLflow: run once, looked at from all sides."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from search.exports.evaluate import evaluate_model
from search.ranking.asha import stops
from search.ranking.gain_sentence import describe_gain
from search.running.driver import run
from search.space.sampling import base_parameters
from search.study.record import End, TrialRecord
from search.study.search_state import SearchState
from search.tracking.description import flat_metrics
from trainer.config import Data
from trainer.export.bundle import load_export
from trainer.model.checkpoint import load
from trainer.phases import plan
from trainer.training.lr_schedule import lr_factor

from .conftest import errors_of
from .searched import Searched, search_and_extend

Make = Callable[..., Any]
STAGES, STEPS = 5, 3
ENDS = {
    End.FINISHED: (TrialState.COMPLETE, "FINISHED"),
    End.PRUNED: (TrialState.PRUNED, "KILLED"),
}


@pytest.fixture(scope="module")
def searched(make_raw: Make, store: str, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """See `search_and_extend`."""
    return search_and_extend(make_raw, store, tmp_path_factory.mktemp("searched"))


# -- the record -----------------------------------------------------------------------------------


def test_every_trial_came_to_a_true_end(searched: Searched) -> None:
    assert searched.first.state == searched.extended.state == SearchState.DONE
    records = searched.study.records
    assert list(records) == list(range(4 + len(searched.confirming)))
    assert [r.origin for r in searched.study.searched()] == [
        "as written",
        "all unfrozen",
        "sampled",
        "sampled",
    ]
    for record in records.values():
        assert record.end in ENDS, record.text
        assert len(record.reports) == (3 if record.end is End.FINISHED else 2)
        assert (record.stopped_at == 1) == (record.end is End.PRUNED)


def test_each_epoch_is_in_the_study_exactly_once(searched: Searched) -> None:
    lines = (searched.config.folder / "study.journal").read_text().splitlines()
    written = [
        (entry["trial_id"], key)
        for entry in map(json.loads, lines)
        for key in entry.get("user_attr", {})
        if "trial_id" in entry and key.startswith("epoch ")
    ]
    reports = [report for r in searched.study.records.values() for report in r.reports.values()]
    assert len(written) == len(set(written)) == len(reports)
    for record in searched.study.records.values():
        assert list(record.reports) == list(range(1, len(record.reports) + 1))
        assert [r.unfreeze_epoch for r in record.reports.values()] == [0, 1, 2][
            : len(record.reports)
        ]


def test_the_head_was_trained_once_and_the_others_took_it_over(searched: Searched) -> None:
    first, *others = searched.study.searched()
    head = first.reports[1]
    assert not any(report.forked for report in first.reports.values())
    for record in others:
        assert record.reports[1] == replace(head, forked=True)
        assert [r.forked for r in record.reports.values()][1:] == [False] * (
            len(record.reports) - 1
        )
    # those that confirm have another seed, and so another head, which they share
    filed = [load(file)["reports"] for file in searched.config.folder.glob("phases/*/last.pt")]
    assert [len(reports) for reports in filed].count(1) == 2
    assert searched.extended.costs.epochs_forked == 3 + len(searched.confirming) - 1
    unfrozen = sum(len(r.reports) - 1 for r in searched.study.records.values())
    assert searched.extended.costs.epochs_run == 2 + unfrozen


def test_who_was_stopped_follows_from_the_reports_in_their_order(searched: Searched) -> None:
    asha = searched.config.search.asha
    assert asha != "off"
    arrived = sorted((record.times[2], record.number) for record in searched.study.searched())
    before: list[TrialRecord] = []
    for _, number in arrived:
        record = searched.study.records[number]
        stopped = stops(asha, 2, record, record.reports[2], before)
        assert stopped == (record.end is End.PRUNED)
        before.append(record)


def test_optuna_holds_the_true_ends_and_values(searched: Searched) -> None:
    for trial in searched.study.optuna.trials:
        record = searched.study.records[trial.number]
        assert record.end is not None and record.best is not None
        assert trial.state is ENDS[record.end][0]
        epochs = [r.unfreeze_epoch for r in record.reports.values() if r.unfreeze_epoch]
        best = {epoch: record.best_until(epoch) for epoch in epochs}
        assert trial.intermediate_values == best
        assert trial.params == record.parameters


# -- MLflow ---------------------------------------------------------------------------------------


def test_each_epoch_is_in_mlflow_exactly_once(searched: Searched) -> None:
    assert searched.runs.keys() == searched.study.records.keys()
    for number, record in searched.study.records.items():
        for key in flat_metrics(record.reports[1]):
            wanted = [(epoch, flat_metrics(r)[key]) for epoch, r in record.reports.items()]
            assert searched.history(number, key) == wanted


def test_trials_are_children_of_the_search_with_their_ends(searched: Searched) -> None:
    assert searched.parent.info.status == "FINISHED"
    assert searched.parent.data.params["backbone"] == "tf_efficientnet_lite0"
    assert searched.extended.winner is not None
    best = searched.extended.winner.record.number
    assert searched.parent.data.tags["unfreeze.best_trial"] == str(best)
    for number, child in searched.runs.items():
        record = searched.study.records[number]
        assert record.end is not None
        assert child.data.tags["mlflow.parentRunId"] == searched.parent.info.run_id
        assert child.data.tags["unfreeze.end"] == record.end.value
        assert child.info.status == ENDS[record.end][1]


def test_mlflow_has_the_report_and_every_finished_trials_review(searched: Searched) -> None:
    client = MlflowClient(str(searched.config.tracking))
    files = {f.path for f in client.list_artifacts(searched.parent.info.run_id)}
    assert files == {"search.yaml", "table.md", "report.html", "data.png"}
    assert (searched.config.folder / "report.html").is_file()
    assert searched.parent.inputs is not None
    splits = {d.tags[0].value for d in searched.parent.inputs.dataset_inputs}
    assert splits == {"train", "val"}
    assert "unfreeze.best_map" in searched.parent.data.tags
    assert "won" in searched.parent.data.tags["mlflow.note.content"]
    for number, record in searched.study.records.items():
        logged = {f.path for f in client.list_artifacts(searched.runs[number].info.run_id)}
        assert ("predictions.jpg" in logged) == (record.end is End.FINISHED)
        assert searched.runs[number].data.metrics["system/memory_gb"] > 0


def test_the_sampled_values_arrived_in_the_optimizer(searched: Searched) -> None:
    seen = set()
    for number, record in searched.study.records.items():
        config = searched.trained(number)
        params = searched.runs[number].data.params
        assert params == {name: str(value) for name, value in record.parameters.items()}
        assert float(params["train.unfreeze.lr"]) == config.train.unfreeze.lr
        seen.add(config.train.unfreeze.lr)
        for phase in plan(config.train, STAGES):
            for epoch in range(phase.first_epoch, min(phase.end, len(record.reports))):
                done = (epoch - phase.first_epoch + 1) * STEPS
                factor = lr_factor(done - 1, phase.epochs * STEPS, round(STEPS / 2))
                rows = {key: dict(searched.history(number, key))[epoch + 1] for key in rows_of()}
                assert rows["lr/head"] == pytest.approx(phase.lr * factor)
                assert rows["weight_decay/head"] == pytest.approx(phase.weight_decay)
                for stage in range(1, STAGES + 1):
                    open_now = stage > STAGES - phase.depth
                    lr = phase.lr * phase.backbone_lr_ratio * factor if open_now else 0.0
                    assert rows[f"lr/stage{stage}"] == pytest.approx(lr)
                    assert (rows[f"trainable/stage{stage}"] > 0) == open_now
    assert len(seen) == 3  # trials 0 and 1 share the learning rate as written


def rows_of() -> list[str]:
    stages = [f"stage{stage}" for stage in range(1, STAGES + 1)]
    return [
        "lr/head",
        "weight_decay/head",
        *(f"lr/{stage}" for stage in stages),
        *(f"trainable/{stage}" for stage in stages),
    ]


def test_trial_0_is_the_configuration_as_written_and_trial_1_all_unfrozen(
    searched: Searched,
) -> None:
    first = base_parameters(searched.extended.space, searched.config)
    assert searched.study.records[0].parameters == first
    assert searched.study.records[1].parameters == {**first, "train.unfreeze.depth": STAGES}


# -- the winner -----------------------------------------------------------------------------------


def test_the_winner_is_of_those_that_were_given_the_most_epochs(searched: Searched) -> None:
    result = searched.first
    assert result.winner is not None
    best = result.winner.record
    assert result.winner.rung == max(row.rung for row in result.rows)
    assert best.best is not None
    assert best.best.map == max(row.map or 0.0 for row in result.rows if row.rung == 1)


def test_the_winners_figures_come_out_again(
    searched: Searched, tiny_data: Data, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(searched.winner, model)
    kept = json.loads((model / "metrics.json").read_text())
    assert searched.first.winner is not None
    record = searched.first.winner.record
    assert record.best is not None
    assert kept["of"] == {"trial": record.number, "epoch": record.best.epoch}
    assert load_export(model)[1].config.train == searched.trained(record.number).train
    measured = evaluate_model(str(model), tiny_data.train.parent, "val", tmp_path, None)
    assert measured["figures"] == pytest.approx(kept["val"]["figures"], abs=1e-4)
    assert measured["figures"]["mar_100"] > 0
    assert searched.first.metrics == kept


def test_the_folder_holds_what_it_should(searched: Searched) -> None:
    folder = searched.config.folder
    assert {file.name for file in folder.iterdir()} >= {
        "search.yaml",
        "study.journal",
        "trials",
        "phases",
        "winner",
    }
    assert not (folder / "driver.json").exists()
    assert {place.name for place in (folder / "trials").iterdir()} == {
        str(number) for number in searched.study.records
    }
    for place in (folder / "trials").iterdir():
        assert "best.pt" in {file.name for file in place.iterdir()}


# -- again, and on --------------------------------------------------------------------------------


def test_each_epoch_was_shown_once(searched: Searched) -> None:
    assert " at once, 1 CPU each (1 node)" in "\n".join(searched.said)
    assert sum(bool(re.match(r"trial \d+ epoch ", line)) for line in searched.said) == sum(
        len(r.reports) for r in searched.between.values()
    )
    assert any(line.endswith("(3 of 3)") for line in searched.said)


def test_the_same_command_again_shows_the_result_and_runs_nothing(searched: Searched) -> None:
    assert searched.first.winner is not None
    assert f"Winner: trial #{searched.first.winner.record.number}" in searched.again
    assert f"{searched.first.metrics['val']['figures']['map']:.3f}" in searched.again
    assert " epoch 1 " not in searched.again and "exporting" not in searched.again
    assert {n: r.reports for n, r in searched.between.items()} == {
        row.record.number: row.record.reports for row in searched.first.rows
    }


def test_more_trials_extend_it(searched: Searched) -> None:
    assert len(searched.first.rows) == 3
    assert len(searched.extended.rows) == len(searched.study.records)
    for number, before in searched.between.items():
        after = searched.study.records[number]
        assert (after.reports, after.times, after.end) == (
            before.reports,
            before.times,
            before.end,
        )


def test_the_best_and_the_one_as_written_are_confirmed_with_another_seed(
    searched: Searched,
) -> None:
    row = searched.extended.winner
    assert row is not None
    assert {0, row.record.number} <= {again.confirms for again in searched.confirming}
    for again in searched.confirming:
        assert again.confirms is not None
        before = searched.study.records[again.confirms]
        assert (again.end, again.seed) == (End.FINISHED, searched.config.train.seed + 1)
        assert again.parameters == before.parameters
        assert again.reports[1].map != before.reports[1].map  # a head of another seed
        tags = searched.runs[again.number].data.tags
        assert tags["unfreeze.origin"] == f"confirms #{before.number}"
    (fresh,) = row.fresh
    assert fresh.best is not None and row.mean == fresh.best.map
    assert searched.extended.metrics["of"]["trial"] == row.best_run.number
    said = describe_gain(searched.config, searched.extended.rows, row)
    assert said in searched.parent.data.tags["mlflow.note.content"]
    assert said in (searched.config.folder / "winner" / "README.md").read_text()
    assert said.split(":")[0] in (searched.config.folder / "report.html").read_text()


def test_a_changed_learning_rate_is_refused_with_the_difference(searched: Searched) -> None:
    assert searched.refusal[0].startswith(f"{searched.config.folder} holds a search of this name")
    assert searched.refusal[1:] == ["train.unfreeze.lr: 0.002 (was 0.004)"]


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(
    make_search: Make, tmp_path: Path
) -> None:
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "a.pth")
    choice = {"model.weights": {"choice": ["none", str(tmp_path / "a.pth")]}}
    config = make_search({"space": choice, "tracking": "off"})
    (error,) = errors_of(run, config)
    assert error.startswith(f"model.weights: {tmp_path / 'a.pth'} does not fit tf_efficientnet")
    assert not config.folder.exists()
