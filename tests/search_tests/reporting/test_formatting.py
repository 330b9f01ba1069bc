"""How trials, values and figures are written."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from search.ranking.costs import Costs
from search.ranking.ranking import rank
from search.reporting.formatting import (
    column_headings,
    cost_lines,
    cost_sentences,
    duration,
    error_line,
    markdown,
    show_figure,
    show_mean,
    show_settings,
    show_value,
    time_saved,
    trial_name,
)
from search.space.sampling import base_parameters
from search.space.space import read_space
from search.study.record import End

from ..conftest import SPACE

Make = Callable[..., Any]
SPENT = Costs(3, 20, 5, 8, 1200, 60.0, 7200.0, True, 1.5, 0.0)


def test_headings_are_the_shortest_ends_that_differ() -> None:
    space = read_space(
        {
            "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
            "train.head.lr": {"log": [1e-4, 1e-2]},
            "train.unfreeze.depth": {"int": [0, 3]},
        }
    )
    assert column_headings(space) == {
        "train.unfreeze.depth": "depth",
        "train.unfreeze.lr": "unfreeze.lr",
        "train.head.lr": "head.lr",
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.00123456, "0.0012"), (3, "3"), ("gradual", "gradual"), (1e-6, "1e-06")],
)
def test_a_value_is_shown_short(value: Any, shown: str) -> None:
    assert show_value(value) == shown


@pytest.mark.parametrize(
    ("values", "shown"), [([], ""), ([0.5], "0.500"), ([0.4, 0.6], "0.500±0.141")]
)
def test_a_mean_is_shown_with_the_deviation_of_several_runs(
    make_search: Make, make_record: Make, values: list[float], shown: str
) -> None:
    runs = [
        make_record(n, [0.1] + [value] * 9, end=End.FINISHED)
        for n, value in enumerate(values, start=1)
    ]
    for run in runs:
        run.confirms = 0
    row, *_ = rank(make_search(), [make_record(0, [0.1] + [0.5] * 9, end=End.FINISHED), *runs])
    assert show_mean(row) == shown


def test_the_table_names_the_origin_of_a_trial(make_search: Make, make_record: Make) -> None:
    config = make_search({"space": SPACE})
    space = read_space(SPACE)
    first = base_parameters(space, config)
    headless = {"train.unfreeze.depth": 0, "train.unfreeze.lr": 1e-3}  # no schedule at depth 0
    rows = rank(
        config,
        [
            make_record(0, [0.1, 0.3], origin="as written", parameters=first, end=End.PRUNED),
            make_record(1, [0.1, 0.2], parameters=headless),
            make_record(2, [], parameters=first, end=End.LOST),
        ],
    )
    assert show_settings(rows[1], space) == "depth 0, lr 0.001"
    assert [trial_name(row) for row in rows] == ["#0 baseline", "#1", "#2"]
    table = markdown(space, rows).splitlines()
    assert table[0] == (
        "| rank | trial | val AP | AP50 | epoch | rung | fresh mean | depth | schedule | lr "
        "| state |"
    )
    assert table[2] == (
        "| 1 | #0 baseline | 0.3000 | 0.6000 | 2 | 1 |  | 2 | gradual | 0.001 | pruned |"
    )
    assert table[3] == "| 2 | #1 | 0.2000 | 0.4000 | 2 | 1 |  | 0 | - | 0.001 | interrupted |"
    assert table[4].startswith("| 3 | #2 | - | - | - | 0 |") and table[4].endswith("| lost |")
    assert len({line.count("|") for line in table}) == 1


def test_a_value_cannot_end_a_cell_of_the_table(make_search: Make, make_record: Make) -> None:
    config = make_search()
    space = read_space({"model.weights": {"choice": ["a|b", "c"]}})
    (row,) = rank(config, [make_record(0, [0.1], parameters={"model.weights": "a|b\n<i>"})])
    table = markdown(space, [row]).splitlines()
    assert len(table) == 3 and r"| a\|b\\n&lt;i&gt; |" in table[2]


def test_a_figure_that_cannot_be_measured_is_a_dash() -> None:
    assert (show_figure(0.12345), show_figure(0.0), show_figure(None)) == ("0.123", "0.000", "-")


def test_an_error_is_its_last_line(make_record: Make) -> None:
    record = make_record(0, [], end=End.ERROR)
    assert error_line(record) == ""
    record.text = "Traceback\n  ...\nKeyError: 'x'\n"
    assert error_line(record) == "KeyError: 'x'"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (840, "14 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_durations_have_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("unsaved", "text"),
    [
        (60.0, ""),
        (7200.0, "training took 60 s of trials' time; without forks and stops about 2.0 h"),
    ],
)
def test_saved_time_is_described_where_some_was_saved(unsaved: float, text: str) -> None:
    assert time_saved(Costs(1, 2, 0, 0, 0, 60.0, unsaved, False, 0.0, 0.0)) == text


def test_lines_for_a_terminal_name_what_was_run_and_what_was_not() -> None:
    assert cost_lines(SPENT).splitlines() == [
        "3 trials; 20 epochs trained in 1.50 CPU-hours, 5 forked, 8 not run since ASHA stopped "
        "their trials",
        "frozen stages read from files for 1,200 pictures, not run again",
        "training took 60 s of trials' time; without forks, stops and cached features about 2.0 h",
    ]
    gpu = replace(
        SPENT,
        trials=1,
        epochs_not_run=0,
        images_from_cache=0,
        seconds_without_savings=0.0,
        gpu_hours=0.5,
    )
    assert cost_lines(gpu) == "1 trial; 20 epochs trained in 0.50 GPU-hours, 5 forked"


def test_sentences_for_the_report_name_the_same() -> None:
    text = cost_sentences(SPENT)
    assert text.startswith("Its 3 trials trained 20 epochs; 5 were forked, which means taken over")
    assert "and 8 were not run, since ASHA had stopped their trials. For 1,200 pictures" in text
    assert text.endswith("cached features about 2.0 h.")
    assert cost_sentences(Costs(0, 0, 0, 0, 0, 0.0, 0.0, False, 0.0, 0.0)) == ""
