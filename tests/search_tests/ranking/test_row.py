"""One trial of the table: its state, its runs, and which checkpoint it exports."""

from collections.abc import Callable
from typing import Any

import pytest

from search.ranking.ranking import rank
from search.ranking.row import checkpoint_of, metrics_belong_to, state_in
from search.study.record import End

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("search", "maps", "end", "state"),
    [
        ("running", [], None, "no epoch yet"),
        ("stopped", [], None, "no epoch yet"),
        ("running", [0.1], None, "under way"),
        ("stopped", [0.1], None, "interrupted"),
        ("running", [0.1], End.PRUNED, "pruned"),
        ("running", [], End.ERROR, "error"),
    ],
)
def test_a_trial_without_an_end_has_the_state_of_its_search(
    make_search: Make,
    make_record: Make,
    search: str,
    maps: list[float],
    end: End | None,
    state: str,
) -> None:
    (row,) = rank(make_search(), [make_record(0, maps, end=end)])
    assert state_in(search, row) == state


def test_figures_are_of_the_best_run_at_its_best_epoch(
    make_search: Make, make_record: Make
) -> None:
    (row,) = rank(make_search(), iter([make_record(3, [0.1, 0.5, 0.2], end=End.FINISHED)]))
    exported, another = {"trial": 3, "epoch": 2}, {"trial": 3, "epoch": 1}
    assert checkpoint_of(row) == exported
    assert metrics_belong_to({"of": exported}, row) and not metrics_belong_to({"of": another}, row)
    assert metrics_belong_to(
        {"for": exported, "of": another}, row
    )  # which was exported in its place
    assert not metrics_belong_to({"for": another, "of": exported}, row) and not metrics_belong_to(
        {}, row
    )
    (row,) = rank(make_search(), [make_record(3, [])])
    assert checkpoint_of(row) == {"trial": 3, "epoch": 0}
