"""The charts that show the search itself, over a made-up search."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from search.ranking.ranking import rank
from search.ranking.results import SearchResult
from search.reporting import charts
from search.reporting.chart_style import WINNER_COLOUR
from search.reporting.report import read_result
from search.study.record import End

from ..conftest import MadeUp

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def result(made_up: MadeUp) -> SearchResult:
    return read_result(made_up.config, made_up.study)


def test_curves_are_drawn_over_unfreeze_epochs_with_rungs(result: SearchResult) -> None:
    figure = charts.learning_curves(result)
    assert len(figure.data) == 11
    assert all(min(trace.x) == 0 for trace in figure.data)  # a head phase of one epoch
    assert {trace.line.dash for trace in figure.data} == {"solid", "dot"}
    assert sorted(s.x0 for s in figure.layout.shapes if s.type == "line") == [1, 3]
    names = [trace.name for trace in figure.data if trace.showlegend]
    assert len(names) == 3 and names[-1].endswith("winner")
    texts = [note.text for note in figure.layout.annotations]
    assert "head phase" in texts and "depth 2" in texts


def test_depth_is_the_depth_that_a_trial_reached(result: SearchResult) -> None:
    assert charts.depth_against_ap(result) == (
        "No two trials that came to an unfreeze epoch differ in depth."  # all reports say 2
    )


def test_depth_is_drawn_against_the_best_ap(result: SearchResult, make_record: Make) -> None:
    records = [
        make_record(0, [0.1] + [0.3] * 9, end=End.FINISHED),
        make_record(1, [0.1] + [0.5] * 9, end=End.FINISHED),
        make_record(2, [0.1] + [0.4] * 9, end=End.FINISHED),
        make_record(3, [0.1, 0.2], end=End.PRUNED),
    ]
    for record, depth in zip(records, (3, 1, 1, 2), strict=True):
        last = max(record.reports)
        record.reports[last] = replace(record.reports[last], depth=depth)
        record.reports = {epoch: r for epoch, r in record.reports.items() if epoch in {1, last}}
    rows = rank(result.config, records)
    figure = charts.depth_against_ap(replace(result, rows=rows, winner=rows[0]))
    best, finished, stopped = figure.data
    assert (list(best.x), list(best.y)) == ([1, 3], [0.5, 0.3])
    assert sorted(zip(finished.x, finished.y, strict=True)) == [(1, 0.4), (1, 0.5), (3, 0.3)]
    assert (list(stopped.x), list(stopped.y)) == ([2], [0.2])
    assert finished.marker.symbol == "circle" and stopped.marker.symbol == "circle-open"
    assert list(finished.marker.color).count(WINNER_COLOUR) == 1


def test_epochs_add_up(result: SearchResult) -> None:
    figure = charts.epochs(result.costs)
    counts = [trace.x[0] for trace in figure.data]
    assert counts == [
        result.costs.epochs_run,
        result.costs.epochs_forked,
        result.costs.epochs_not_run,
    ]
    stopped = sum(row.record.end is End.PRUNED for row in result.rows)
    assert counts[2] == 8 * stopped


def test_seeds_show_every_run_and_their_mean(result: SearchResult) -> None:
    runs, mean = charts.seeds(result).data
    row = result.winner
    assert row is not None
    assert list(runs.y) == [row.map, row.mean]  # the hollow one is what it was chosen by
    assert list(runs.marker.symbol) == ["circle-open", "circle"]
    assert list(mean.y) == [row.mean]
