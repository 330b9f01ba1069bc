"""What `search`, `train` and `evaluate` print."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.ranking.costs import Costs
from search.ranking.gain_sentence import describe_gain
from search.ranking.ranking import rank, winner
from search.ranking.results import SearchResult
from search.ranking.row import Row
from search.reporting import status, summary
from search.reporting.console import text_console
from search.reporting.report import page, read_result
from search.reporting.verdict import verdict
from search.space.space import Dimension, Space
from search.study.record import End
from search.study.study import Study

from ..conftest import SPACE, Trained

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]


def test_a_winner_is_printed_with_its_figures_and_the_next_commands(
    trained: Trained, capsys: Captured
) -> None:
    summary.print_result(trained.result)
    out = capsys.readouterr().out
    assert re.search(r"1 trial; 2 epochs trained in \d\.\d\d CPU-hours, 0 forked\n", out)
    assert "Winner: trial #0 baseline" in out
    figure = trained.result.metrics["val"]["figures"]["map"]
    assert f"{figure:.3f}" in out
    winner = trained.config.folder / "winner"
    assert f"unfreeze predict {winner} PICTURES --out predicted\n" in out  # not in ./searches
    assert f"Weights, figures and pictures: {winner}\n" in out


def test_the_next_commands_take_a_name_where_the_default_storage_has_it(
    trained: Trained, capsys: Captured
) -> None:
    config = trained.config.model_copy(update={"storage": Path("searches").absolute()})
    summary.print_result(replace(trained.result, config=config))
    out = capsys.readouterr().out
    assert "unfreeze export once --out model\n" in out
    assert "Weights, figures and pictures: searches/once/winner\n" in out


@pytest.mark.usefixtures("narrow")
def test_on_a_terminal_no_path_is_broken(trained: Trained, capsys: Captured) -> None:
    storage = Path("/" + "/".join(["a folder with a long name"] * 6))
    config = trained.config.model_copy(update={"storage": storage})
    summary.print_result(replace(trained.result, config=config))
    lines = capsys.readouterr().out.splitlines()
    winner = f"{storage}/once/winner"
    assert f"Weights, figures and pictures: {winner}" in lines
    assert f"  unfreeze export '{winner}' --out model" in lines


@pytest.fixture
def with_many_fields(make_search: Make, make_record: Make) -> tuple[list[Row], Space]:
    """The rows of a search over eight fields."""
    rates = ("lr", "weight_decay", "backbone_lr_ratio", "stage_lr_decay", "drop_path", "ema_decay")
    names = ["train.unfreeze.depth", *(f"train.unfreeze.{r}" for r in rates), "train.clip_norm"]
    space = [Dimension(name, "uniform", 0.0, 1.0) for name in names]
    values = {name: 0.12345 for name in names}
    records = [
        make_record(0, [0.1] * 9 + [0.5], end=End.OUT_OF_MEMORY, parameters=values),
        make_record(1, [0.1, 0.2], end=End.PRUNED, parameters=values, origin="all unfrozen"),
    ]
    return rank(make_search(), records), space


def test_what_is_no_terminal_gets_every_column(
    with_many_fields: tuple[list[Row], Space], capsys: Captured
) -> None:
    summary.print_trials(text_console(), *with_many_fields, "done")
    heads, first, second = capsys.readouterr().out.splitlines()
    assert "AP50" in heads and "backbone_lr_ratio" in heads and "clip_norm" in heads
    assert first.count("0.12") == second.count("0.12") == 8


@pytest.mark.usefixtures("narrow")
def test_a_terminal_lacks_columns_and_says_which(
    with_many_fields: tuple[list[Row], Space], capsys: Captured
) -> None:
    summary.print_trials(text_console(), *with_many_fields, "done")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if " #" in line]
    assert [row.split()[-1] for row in rows] == ["pruned", "memory"] and "#1 all unfrozen" in out
    (hidden,) = re.findall(r"Not shown in a window of this width: (.*)\.", out)
    assert hidden.endswith("clip_norm") and "depth" not in hidden
    assert rows[0].count("0.12") == 8 - len(hidden.split(", ")) > 0


def test_a_trial_that_went_on_in_another_environment_is_named(
    begun: Study, make_search: Make, make_reports: Make, capsys: Captured
) -> None:
    for report in make_reports([0.1, 0.2]):
        begun.record(1, replace(report, environment={"torch": f"2.{report.epoch}"}))
    config = make_search({"space": SPACE})
    status.print_status(config.storage, config.name)
    summary.print_result(read_result(config, begun))
    out = capsys.readouterr().out
    assert out.count("Trial #1 continued from epoch 2 with torch 2.2 (was 2.1)") == 2
    assert "Trial #0 continued" not in out
    assert "continued from epoch 2 with torch 2.2" in page(read_result(config, begun), begun)


def test_without_a_winner_each_trials_reason_is_printed(
    make_search: Make, make_record: Make, capsys: Captured
) -> None:
    config = make_search()
    records = [make_record(0, [], end=End.ERROR), make_record(1, [], end=End.OUT_OF_MEMORY)]
    records[0].text = "Traceback\n  ...\nKeyError: 'x'"
    rows = rank(config, records)
    result = SearchResult(
        config, [], rows, winner(rows), {}, Costs(2, 0, 0, 0, 0, 0.0, 0.0, False, 0.0, 0.0), "done"
    )
    summary.print_result(result)
    out = capsys.readouterr().out
    assert "No trial came to a result:" in out
    assert "trial 0: error: KeyError: 'x'" in out
    assert "trial 1: out of memory" in out


@pytest.mark.parametrize("counts_kept", [False, True])
def test_an_interrupted_search_says_how_to_go_on(
    make_search: Make, make_record: Make, capsys: Captured, counts_kept: bool
) -> None:
    config = make_search()
    rows = rank(config, [make_record(0, [0.1, 0.2])])
    costs = Costs(1, 2, 0, 0, 600, 4.0, 9.0, counts_kept, 0.0, 0.0)
    result = SearchResult(config, [], rows, winner(rows), {}, costs, "interrupted")
    summary.print_result(result)
    out = " ".join(capsys.readouterr().out.split())
    assert "Interrupted. The same command again continues." in out
    assert "frozen stages read from files for 600 pictures, not run again" in out
    what = "forks, stops and cached features" if counts_kept else "forks and stops"
    assert f"training took 4 s of trials' time; without {what} about 9 s" in out


def test_a_gain_is_printed_as_in_the_report(
    trained: Trained, make_record: Make, capsys: Captured
) -> None:
    config = trained.config
    records = [
        make_record(0, [0.1, 0.3], origin="as written", end=End.FINISHED),
        make_record(1, [0.1, 0.4], parameters={"n": 1}, end=End.FINISHED),
    ]
    rows = rank(config, records)
    result = replace(trained.result, rows=rows, winner=winner(rows))
    summary.print_result(result)
    out = " ".join(capsys.readouterr().out.split())
    line = describe_gain(config, rows, rows[0])
    assert (
        "came to 0.400 val AP and the baseline (the configuration in search.yaml) to 0.300" in line
    )
    assert line in out and line in verdict(result)


def test_a_stopped_trial_that_was_better_is_not_compared_unless_it_ran_again(
    trained: Trained, make_search: Make, make_record: Make, capsys: Captured
) -> None:
    config = make_search()
    records = [
        make_record(0, [0.1, 0.5], origin="as written", end=End.PRUNED),
        make_record(1, [0.1] + [0.4] * 9, parameters={"n": 1}, end=End.FINISHED),
    ]
    for fresh in ([], [(0, 0.3), (1, 0.4)]):
        for number, value in fresh:
            record = make_record(2 + number, [0.1] + [value] * 9, end=End.FINISHED)
            record.confirms, record.seed = number, 1
            records.append(record)
        rows = rank(config, records)
        result = replace(trained.result, config=config, rows=rows, winner=winner(rows))
        summary.print_result(result)
        out = " ".join(capsys.readouterr().out.split())
        assert ("Trial #0 had 0.500, but ran fewer epochs" in out) is not bool(fresh)


def test_figures_with_all_detections_stand_beside_cocos(capsys: Captured) -> None:
    more = {"map": 0.7, "mar_300": 0.8}
    figures = {"figures": {"map": 0.5}, "per_class": {"red": 0.5}, "detections": 300}
    summary.print_metrics("val", {**figures, "at_detections": more})
    assert capsys.readouterr().out.split("\n")[1:-1] == [
        "AP                 0.5000",
        "AP, 300 a picture  0.7000",
        "AR, 300 a picture  0.8000",
        "AP red             0.5000",
    ]


def test_figures_that_cannot_be_measured_are_dashes(capsys: Captured) -> None:
    figures = {"map": 0.12345, "map_large": None}
    summary.print_metrics("val", {"figures": figures, "per_class": {"red": 0.5, "blue": None}})
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert out == [
        ["On", "val:"],
        ["AP", "0.1235"],
        ["AP", "(large", "boxes)", "-"],
        ["AP", "red", "0.5000"],
        ["AP", "blue", "-"],
    ]
