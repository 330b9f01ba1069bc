"""Optuna's charts, over a made-up search."""

import optuna
import pytest

from search.ranking.results import SearchResult
from search.reporting import optuna_charts
from search.reporting.report import read_result

from ..conftest import MadeUp


@pytest.fixture(scope="module")
def result(made_up: MadeUp) -> SearchResult:
    return read_result(made_up.config, made_up.study)


def test_trials_are_compared_at_the_first_rung(made_up: MadeUp, result: SearchResult) -> None:
    study, height = optuna_charts.comparable_study(result, made_up.study)
    assert height == 1
    assert len(study.trials) == 10  # not the one that confirms
    for trial, record in zip(study.trials, made_up.study.searched(), strict=True):
        assert trial.value == record.best_until(1)
        assert set(trial.params) <= {"lr", "depth", "schedule"}


def test_optunas_plots_are_drawn(made_up: MadeUp, result: SearchResult) -> None:
    study, _ = optuna_charts.comparable_study(result, made_up.study)
    for draw in (
        optuna_charts.importances,
        optuna_charts.slices,
        optuna_charts.parallel_coordinates,
    ):
        assert draw(study).data
    assert sum(len(trace.y) for trace in optuna_charts.timeline(made_up.study).data) == 11


def test_slices_name_choices_as_they_are(made_up: MadeUp, result: SearchResult) -> None:
    study, _ = optuna_charts.comparable_study(result, made_up.study)
    figure = optuna_charts.slices(study)
    shown = {str(x) for trace in figure.data for x in trace.x}
    assert {"gradual", "at_once"} & shown and not any("'" in x for x in shown)


def test_dimensions_that_not_all_trials_have_are_named() -> None:
    study = optuna.create_study()
    wide = optuna.distributions.FloatDistribution(0, 1)
    for params in ({"lr": 0.1, "depth": 0.2}, {"lr": 0.3}):
        study.add_trial(
            optuna.create_trial(params=params, distributions=dict.fromkeys(params, wide), value=0)
        )
    assert optuna_charts.left_out(study) == " Left out, since not all trials have it: depth."
    assert optuna_charts.left_out(optuna.create_study()) == ""
