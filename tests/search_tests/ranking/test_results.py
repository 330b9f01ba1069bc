"""The result of a search as a table of numbers."""

from dataclasses import replace

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


def test_a_trial_that_runs_is_under_way_while_its_search_runs(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    row = result.rows[0]
    begun = replace(row, record=replace(row.record, end=None))
    for state, shown in (("running", "under way"), ("interrupted", "interrupted")):
        frame = to_frame(replace(result, rows=[begun], state=state))
        assert frame["state"].tolist() == [shown]
