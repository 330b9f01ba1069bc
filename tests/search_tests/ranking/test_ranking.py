"""The ranked table, and which configuration wins."""

from collections.abc import Callable
from typing import Any

import pytest

from search.ranking.ranking import rank, winner
from search.ranking.row import Row
from search.study.record import End
from search.study.search_state import SearchState

Make = Callable[..., Any]


def best_of(rows: list[Row]) -> Row:
    """The winner."""
    best = winner(rows)
    assert best is not None
    return best


def test_a_better_figure_at_a_lower_rung_ranks_below(make_search: Make, make_record: Make) -> None:
    long = make_record(0, [0.1, 0.1, 0.1, 0.2], end=End.FINISHED)
    short = make_record(1, [0.1, 0.9], end=End.PRUNED)
    rows = rank(make_search(), [short, long])
    assert [(row.rank, row.record.number, row.rung, row.map) for row in rows] == [
        (1, 0, 3, 0.2),
        (2, 1, 1, 0.9),
    ]
    assert winner(rows) is rows[0]


@pytest.mark.parametrize("end", [End.DIVERGED, End.OUT_OF_MEMORY, End.ERROR, End.LOST])
def test_a_trial_that_failed_never_wins(make_search: Make, make_record: Make, end: End) -> None:
    failed = make_record(0, [0.1] + [0.9] * 5, end=end)
    pruned = make_record(1, [0.1, 0.0], end=End.PRUNED)
    rows = rank(make_search(), [failed, pruned])
    assert [row.record.number for row in rows] == [1, 0]
    assert winner(rows) is rows[0]
    assert winner(rank(make_search(), [failed])) is None


def test_a_trial_without_reports_never_wins(make_search: Make, make_record: Make) -> None:
    rows = rank(make_search(), [make_record(0, []), make_record(1, [], end=End.PRUNED)])
    assert winner(rows) is None
    assert [row.map for row in rows] == [None, None]
    assert winner([]) is None


def test_an_interrupted_trial_may_win_and_says_so(make_search: Make, make_record: Make) -> None:
    rows = rank(make_search(), [make_record(0, [0.1, 0.2])])
    assert winner(rows) is rows[0]
    assert rows[0].state == SearchState.INTERRUPTED


def test_without_asha_all_are_of_one_rung(make_search: Make, make_record: Make) -> None:
    config = make_search({"search.asha": "off"})
    records = [make_record(0, [0.1] * 10, end=End.FINISHED), make_record(1, [0.1, 0.5])]
    rows = rank(config, records)
    assert [(row.record.number, row.rung) for row in rows] == [(1, 0), (0, 0)]


def test_a_configuration_whose_confirming_run_failed_does_not_win(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.confirm": {"top": 2, "seeds": 1}})
    records = [
        make_record(0, [0.1] + [0.55] * 9, end=End.FINISHED),
        make_record(1, [0.1] + [0.54] * 9, end=End.FINISHED),
        make_record(2, [0.1, 0.2], end=End.DIVERGED),
        make_record(3, [0.1] + [0.53] * 9, end=End.FINISHED),
    ]
    records[2].confirms, records[3].confirms = 0, 1
    rows = rank(config, records)
    assert best_of(rows).record.number == 1
    assert [row.record.number for row in rows] == [1, 3, 0, 2]
    records[2].end = None  # it still runs
    assert best_of(rank(config, records)).record.number == 0
