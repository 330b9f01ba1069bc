"""The charts that show the search itself, over a made-up search."""

import pytest

from search.ranking.results import SearchResult
from search.reporting import charts
from search.reporting.report import read_result
from search.study.study import End

from ..conftest import MadeUp


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


def test_epochs_add_up(result: SearchResult) -> None:
    figure = charts.epochs(result.costs)
    counts = [trace.x[0] for trace in figure.data]
    assert counts == [result.costs.run, result.costs.forked, result.costs.stopped]
    stopped = sum(row.record.end is End.PRUNED for row in result.rows)
    assert counts[2] == 8 * stopped


def test_seeds_show_every_run_and_their_mean(result: SearchResult) -> None:
    runs, mean = charts.seeds(result).data
    row = result.winner
    assert row is not None
    assert list(runs.y) == [row.map, row.mean]  # the hollow one is what it was chosen by
    assert list(runs.marker.symbol) == ["circle-open", "circle"]
    assert list(mean.y) == [row.mean]
