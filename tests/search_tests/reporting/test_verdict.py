"""What won, by how much, and how far to trust it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from search.ranking.gain_sentence import describe_gain
from search.reporting.report import read_result
from search.reporting.verdict import verdict
from search.study.search_state import SearchState

from ..conftest import SPACE, MadeUp

Make = Callable[..., Any]


def test_the_verdict_says_what_won_by_how_much_and_whether_to_believe_it(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    assert result.winner is not None
    won, val, test, gain, epochs = verdict(result)
    assert won.startswith(f"Trial #{result.winner.record.number} won: depth ")
    assert val == "Measured from its export, its val AP is 0.500."
    assert "it is 0.470: 0.030 below val. Test was evaluated once" in test
    assert gain == describe_gain(result.config, result.rows, result.winner)
    assert "may be luck" in gain  # the baseline has no fresh run
    assert epochs.startswith("Its 11 trials trained ") and " not run, since ASHA" in epochs


def test_the_gain_of_a_winner_that_ran_once_may_be_luck(
    make_search: Make, make_study: Make
) -> None:
    study = make_study([[0.1, 0.3], [0.1, 0.4]])
    result = read_result(make_search({"space": SPACE}), study)
    assert "leads so far" in verdict(result)[0]
    assert "may be luck; search.confirm trains both" in " ".join(verdict(result))


def test_a_test_split_that_was_looked_at_often_flatters(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    test = result.metrics["test"]
    often = {"test": test | {"figures": test["figures"] | {"map": 0.53}, "looks": 3}}
    lines = verdict(replace(result, metrics=result.metrics | often))
    assert lines[2] == (
        "On test, which did not choose the winner, it is 0.530: 0.030 above val. Test was "
        "evaluated 3 times, so its AP there is optimistic."
    )


def test_without_an_export_the_figure_of_training_is_given(made_up: MadeUp) -> None:
    result = replace(read_result(made_up.config, made_up.study), metrics={})
    assert result.winner is not None and result.winner.map is not None
    first, second, *_ = verdict(result)
    assert "leads so far" in first
    assert second == f"Its best val AP during training is {result.winner.map:.3f}."


def test_the_baseline_may_win(make_search: Make, make_study: Make) -> None:
    study = make_study([[0.1, 0.5], [0.1, 0.4]])
    text = " ".join(verdict(read_result(make_search({"space": SPACE}), study)))
    assert (
        "The baseline (the configuration in search.yaml) won: nothing that was tried beat it."
        in text
    )


def test_a_search_that_was_cut_short_says_so(make_search: Make, make_study: Make) -> None:
    study = make_study([[0.1, 0.5], [0.1, 0.4]])
    study.state = SearchState.STOPPED
    result = read_result(make_search({"space": SPACE}), study)
    assert verdict(result)[0] == f"2 of {result.config.search.trials} trials have ended: stopped."


def test_a_trial_that_was_cut_short_beats_nothing(make_search: Make, make_study: Make) -> None:
    study = make_study([[0.1, 0.5], []])
    text = " ".join(verdict(read_result(make_search({"space": SPACE}), study)))
    assert "no other trial trained as many epochs" in text and "beat" not in text
