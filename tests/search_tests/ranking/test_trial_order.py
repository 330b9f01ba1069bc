"""The order of trials: by rung, then by their best epoch."""

from collections.abc import Callable
from typing import Any

from search.ranking.trial_order import best_map, highest_rung, sort_trials
from search.study.record import End, TrialRecord

Make = Callable[..., Any]


def sorted_numbers(make_search: Make, *records: TrialRecord) -> list[int]:
    """Numbers of the trials in order."""
    return [record.number for record in sort_trials(make_search(), records)]


def test_within_a_rung_the_best_epoch_counts(make_search: Make, make_record: Make) -> None:
    assert sorted_numbers(
        make_search,
        make_record(0, [0.1, 0.4, 0.1, 0.1], end=End.PRUNED),
        make_record(1, [0.1, 0.2, 0.6, 0.1], end=End.PRUNED),
        make_record(2, [0.1, 0.2, 0.3, 0.5, 0.1], end=End.FINISHED),
    ) == [1, 2, 0]


def test_equal_trials_rank_by_number(make_search: Make, make_record: Make) -> None:
    records = [make_record(n, [0.1, 0.3], end=End.PRUNED) for n in (2, 0, 1)]
    assert sorted_numbers(make_search, *records) == [0, 1, 2]


def test_a_trial_still_in_its_head_phase_is_of_no_rung(
    make_search: Make, make_record: Make
) -> None:
    config = make_search()
    assert highest_rung(config, make_record(0, [0.3, 0.3], head=2)) == 0
    assert highest_rung(config, make_record(0, [0.3, 0.3], head=1)) == 1


def test_the_best_epoch_may_be_of_the_head_phase(make_record: Make) -> None:
    assert best_map(make_record(0, [0.1, 0.6, 0.2], head=2)) == 0.6
    assert best_map(make_record(0, [])) == -1.0
