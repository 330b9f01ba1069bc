"""What a search cost and saved, in words."""

from dataclasses import replace

import pytest

from search.ranking.costs import Costs
from search.reporting.cost_text import cost_lines, cost_sentences, duration, time_saved

SPENT = Costs(3, 20, 5, 8, 1200, 60.0, 7200.0, True, 1.5, 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (840, "14 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_durations_have_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        (60.0, ""),
        (7200.0, "training took 60 s of trials' time; without forks and stops about 2.0 h"),
    ],
)
def test_saved_time_is_described_where_some_was_saved(whole: float, text: str) -> None:
    assert time_saved(Costs(1, 2, 0, 0, 0, 60.0, whole, False, 0.0, 0.0)) == text


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
