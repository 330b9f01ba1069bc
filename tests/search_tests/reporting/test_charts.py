"""The figures of a report, over a search that was made up."""

from dataclasses import replace

import optuna
import pytest

from search.ranking.results import SearchResult
from search.reporting import charts
from search.reporting.report import read_result
from search.space.space import read_space
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


def test_depth_is_what_was_reached(result: SearchResult) -> None:
    assert charts.depth_against_ap(result) == (
        "No two trials that came to an unfreeze epoch differ in depth."  # all reports say 2
    )


def test_trials_are_compared_at_the_first_rung(made_up: MadeUp, result: SearchResult) -> None:
    study, height = charts.compared(result, made_up.study)
    assert height == 1
    assert len(study.trials) == 10  # not the one that confirms
    for trial, record in zip(study.trials, made_up.study.searched(), strict=True):
        assert trial.value == record.best_until(1)
        assert set(trial.params) <= {"lr", "depth", "schedule"}


def test_optunas_plots_are_drawn(made_up: MadeUp, result: SearchResult) -> None:
    study, _ = charts.compared(result, made_up.study)
    for draw in (charts.importances, charts.slices, charts.parallel_coordinates):
        assert draw(study).data
    assert sum(len(trace.y) for trace in charts.timeline(made_up.study).data) == 11


def test_slices_name_choices_as_they_are(made_up: MadeUp, result: SearchResult) -> None:
    study, _ = charts.compared(result, made_up.study)
    figure = charts.slices(study)
    shown = {str(x) for trace in figure.data for x in trace.x}
    assert {"gradual", "at_once"} & shown and not any("'" in x for x in shown)


def test_what_not_all_trials_have_is_named() -> None:
    study = optuna.create_study()
    wide = optuna.distributions.FloatDistribution(0, 1)
    for params in ({"lr": 0.1, "depth": 0.2}, {"lr": 0.3}):
        study.add_trial(
            optuna.create_trial(params=params, distributions=dict.fromkeys(params, wide), value=0)
        )
    assert charts.left_out(study) == " Left out, since not all of them have it: depth."
    assert charts.left_out(optuna.create_study()) == ""


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
    assert list(runs.y) == [row.map, row.mean]  # hollow the one that it was chosen by
    assert list(runs.marker.symbol) == ["circle-open", "circle"]
    assert list(mean.y) == [row.mean]


def test_names_are_no_markup_to_plotly(result: SearchResult) -> None:
    figure = charts.classes({"val": {"per_class": {"<b>%{x}": 0.5, "$_$\x1b": None}}})
    assert figure.data[0].y == ("&lt;b&gt;%{x}", r"$_$\x1b")
    row = result.rows[0]
    space = read_space({"model.weights": {"choice": ["a", "b"]}})
    chosen = replace(row, values={"model.weights": "%{y}<br>"})
    assert "%&#123;y}&lt;br&gt;" in charts._settings(chosen, space)
