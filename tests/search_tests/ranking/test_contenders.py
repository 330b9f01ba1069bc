"""Which trials are confirmed, and which of them may still win."""

from collections.abc import Callable
from typing import Any

import pytest

from search.ranking.contenders import baseline_trial, leaders, may_win, to_confirm
from search.study.record import End, TrialRecord

Make = Callable[..., Any]


def finished(make_record: Make, number: int, value: float, depth: int, **more: Any) -> TrialRecord:
    """A trial that ran all its epochs."""
    parameters = {"train.unfreeze.depth": depth}
    maps = [0.1] + [value] * 9
    record: TrialRecord = make_record(
        number, maps, **{"end": End.FINISHED, "parameters": parameters} | more
    )
    return record


def test_leaders_are_the_best_configurations_that_finished_each_once(
    make_search: Make, make_record: Make
) -> None:
    records = [
        finished(make_record, 0, 0.5, depth=2, origin="as written"),
        finished(make_record, 1, 0.6, depth=2),  # the baseline again: its trial is taken
        finished(make_record, 2, 0.4, depth=3),
        finished(make_record, 3, 0.9, depth=4, end=End.PRUNED),
        finished(make_record, 4, 0.45, depth=3),
        finished(make_record, 5, 0.3, depth=5),
    ]
    for top, numbers in ((1, [0]), (2, [0, 4]), (5, [0, 4, 5])):
        config = make_search({"search.confirm": {"top": top, "seeds": 1}})
        assert [r.number for r in leaders(config, iter(records))] == numbers
    assert leaders(make_search({"search.confirm": "off"}), records) == []


def at_head_epoch(make_record: Make, number: int, **more: Any) -> TrialRecord:
    """A trial that ran all its epochs and was best in the second epoch of its head phase."""
    record: TrialRecord = make_record(
        number, [0.1, 0.8] + [0.3] * 9, head=2, **{"end": End.FINISHED} | more
    )
    return record


def test_of_trials_with_the_same_head_epoch_one_is_confirmed(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.confirm": {"top": 9, "seeds": 1}})
    records = [
        finished(make_record, 0, 0.7, depth=1, origin="as written"),
        at_head_epoch(make_record, 1, parameters={"train.unfreeze.depth": 2}),
        at_head_epoch(make_record, 2, parameters={"train.unfreeze.depth": 3}),
        finished(make_record, 3, 0.5, depth=4),
    ]
    assert [r.number for r in leaders(config, records)] == [1, 0, 3]
    again = finished(make_record, 4, 0.4, depth=3)
    again.confirms = 2  # as an earlier version confirmed it
    assert [r.number for r in leaders(config, [*records, again])] == [1, 2, 0, 3]
    records[0] = at_head_epoch(make_record, 0, origin="as written")
    assert [r.number for r in leaders(config, records)] == [0, 3]


@pytest.mark.parametrize("searched", ["train.head.lr", "train.optimizer", "model.backbone"])
def test_head_epochs_under_other_settings_are_each_confirmed(
    make_search: Make, make_record: Make, searched: str
) -> None:
    config = make_search({"search.confirm": {"top": 9, "seeds": 1}})
    records = [
        at_head_epoch(make_record, number, parameters={searched: number, "train.unfreeze.lr": 1})
        for number in range(2)
    ]
    assert [r.number for r in leaders(config, records)] == [0, 1]


@pytest.mark.parametrize("end", [None, *End])
def test_the_baseline_is_confirmed_unless_it_failed(
    make_search: Make, make_record: Make, end: End | None
) -> None:
    config = make_search({"search.confirm": {"top": 1, "seeds": 1}})
    baseline = finished(make_record, 0, 0.2, depth=2, origin="as written", end=end)
    records = [baseline, finished(make_record, 1, 0.5, depth=3)]
    again = [1, 0] if end in {End.FINISHED, End.PRUNED} else [1]
    assert [r.number for r in to_confirm(config, iter(records))] == again
    assert baseline_trial(records) is baseline and baseline_trial(records[1:]) is None
    assert to_confirm(config, [baseline]) == ([baseline] if end is End.FINISHED else [])


def test_a_configuration_that_was_sampled_twice_is_confirmed_once(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.confirm": {"top": 2, "seeds": 1}})
    same, other, baseline = {"n": 2}, {"n": 3}, {"n": 1}
    records = [
        make_record(
            n,
            [0.1] + [value] * 9,
            origin="sampled" if n else "as written",
            parameters=parameters,
            end=End.FINISHED,
        )
        for n, (value, parameters) in enumerate(
            [(0.3, baseline), (0.5, same), (0.6, same), (0.4, other), (0.9, baseline)]
        )
    ]
    assert [r.number for r in to_confirm(config, records)] == [2, 3, 0]


def test_the_first_the_first_ended_and_all_confirmed_may_win(
    make_search: Make, make_record: Make
) -> None:
    ends = (None, End.DIVERGED, End.FINISHED, End.FINISHED, End.FINISHED)
    records = [
        finished(make_record, number, 0.9 - number / 10, depth=number, end=end)
        for number, end in enumerate(ends)
    ]
    off = make_search({"search.confirm": "off"})
    assert may_win(off, iter(records)) == {0, 2}  # the first, and the first of those that ended
    assert may_win(off, records[:2]) == {0}
    confirm = make_search({"search.confirm": {"top": 2, "seeds": 1}})
    assert may_win(confirm, iter(records)) == {0, 2, 3}
    again = finished(make_record, 5, 0.1, depth=4)
    again.confirms = 4
    assert may_win(off, [*records, again]) == {0, 2, 4, 5}
