"""The result of a search as a table of numbers."""

from search.ranking.results import to_frame
from search.reporting.report import read_result

from ..conftest import MadeUp


def test_the_frame_has_a_row_for_each_trial_best_first(made_up: MadeUp) -> None:
    trials = to_frame(read_result(made_up.config, made_up.study))
    assert set(trials.index) == set(range(11))
    assert trials["rank"].is_monotonic_increasing
    assert trials.loc[3, "state"] == "error" and trials.loc[10, "confirms"] == trials.index[0]
    assert trials.loc[0, "train.unfreeze.depth"] == 2
    finished = trials[trials["state"] == "finished"]
    assert (finished["epochs"] == 10).all() and (finished["best_epoch"] == 10).all()
    first = trials.loc[1]
    assert first["seconds"] == 2.0 * (first["epochs"] - 1)  # an epoch was forked
