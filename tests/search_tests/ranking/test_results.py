"""Ranking, winner and costs, read off the records."""

from collections.abc import Callable
from typing import Any

import pytest

from search.ranking.results import (
    columns,
    identity,
    is_of,
    leaders,
    markdown,
    may_win,
    rank,
    show,
    show_mean,
    state_in,
    to_confirm,
    trial_name,
    winner,
)
from search.space.sampling import as_written
from search.space.space import read_space
from search.study.study import End, TrialRecord

from ..conftest import SPACE

Make = Callable[..., Any]


def ranked(make_search: Make, *records: TrialRecord) -> list[int]:
    return [row.record.number for row in rank(make_search(), records)]


def test_a_better_figure_at_a_lower_rung_ranks_below(make_search: Make, make_record: Make) -> None:
    long = make_record(0, [0.1, 0.1, 0.1, 0.2], end=End.FINISHED)
    short = make_record(1, [0.1, 0.9], end=End.PRUNED)
    rows = rank(make_search(), [short, long])
    assert [(row.rank, row.record.number, row.rung, row.map) for row in rows] == [
        (1, 0, 3, 0.2),
        (2, 1, 1, 0.9),
    ]
    assert winner(rows) is rows[0]


def test_within_a_rung_the_best_epoch_counts(make_search: Make, make_record: Make) -> None:
    assert ranked(
        make_search,
        make_record(0, [0.1, 0.4, 0.1, 0.1], end=End.PRUNED),
        make_record(1, [0.1, 0.2, 0.6, 0.1], end=End.PRUNED),
        make_record(2, [0.1, 0.2, 0.3, 0.5, 0.1], end=End.FINISHED),
    ) == [1, 2, 0]


def test_equal_trials_rank_by_number(make_search: Make, make_record: Make) -> None:
    records = [make_record(n, [0.1, 0.3], end=End.PRUNED) for n in (2, 0, 1)]
    assert ranked(make_search, *records) == [0, 1, 2]


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
    assert rows[0].state == "interrupted"


def test_without_asha_all_are_of_one_rung(make_search: Make, make_record: Make) -> None:
    config = make_search({"search.asha": "off"})
    records = [make_record(0, [0.1] * 10, end=End.FINISHED), make_record(1, [0.1, 0.5])]
    rows = rank(config, records)
    assert [(row.record.number, row.rung) for row in rows] == [(1, 0), (0, 0)]


def test_a_trial_still_in_its_head_phase_is_of_no_rung(
    make_search: Make, make_record: Make
) -> None:
    (row,) = rank(make_search(), [make_record(0, [0.3, 0.3], head=2)])
    assert row.rung == 0


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


# -- who is confirmed, and whose checkpoint is kept -----------------------------------------------


def finished(make_record: Make, number: int, value: float, depth: int, **more: Any) -> TrialRecord:
    """A trial that ran all its epochs."""
    parameters = {"train.unfreeze.depth": depth}
    maps = [0.1] + [value] * 9
    return make_record(number, maps, **{"end": End.FINISHED, "parameters": parameters} | more)


def test_the_best_configurations_that_finished_lead_each_once(
    make_search: Make, make_record: Make
) -> None:
    records = [
        finished(make_record, 0, 0.5, depth=2, origin="as written"),
        finished(make_record, 1, 0.6, depth=2),  # the same again: the one as written stands for it
        finished(make_record, 2, 0.4, depth=3),
        finished(make_record, 3, 0.9, depth=4, end=End.PRUNED),
        finished(make_record, 4, 0.45, depth=3),
        finished(make_record, 5, 0.3, depth=5),
    ]
    for top, numbers in ((1, [0]), (2, [0, 4]), (5, [0, 4, 5])):
        config = make_search({"search.confirm": {"top": top, "seeds": 1}})
        assert [r.number for r in leaders(config, iter(records))] == numbers
    assert leaders(make_search({"search.confirm": "off"}), records) == []


@pytest.mark.parametrize("end", [None, *End])
def test_the_configuration_as_written_is_confirmed_unless_it_failed(
    make_search: Make, make_record: Make, end: End | None
) -> None:
    config = make_search({"search.confirm": {"top": 1, "seeds": 1}})
    written = finished(make_record, 0, 0.2, depth=2, origin="as written", end=end)
    records = [written, finished(make_record, 1, 0.5, depth=3)]
    again = [1, 0] if end in {End.FINISHED, End.PRUNED} else [1]
    assert [r.number for r in to_confirm(config, iter(records))] == again
    assert to_confirm(config, [written]) == ([written] if end is End.FINISHED else [])


def test_checkpoints_are_kept_of_who_may_win(make_search: Make, make_record: Make) -> None:
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


def test_figures_are_of_the_best_run_at_its_best_epoch(
    make_search: Make, make_record: Make
) -> None:
    (row,) = rank(make_search(), iter([make_record(3, [0.1, 0.5, 0.2], end=End.FINISHED)]))
    it, another = {"trial": 3, "epoch": 2}, {"trial": 3, "epoch": 1}
    assert identity(row) == it
    assert is_of({"of": it}, row) and not is_of({"of": another}, row)
    assert is_of({"for": it, "of": another}, row)  # which stood in for it
    assert not is_of({"for": another, "of": it}, row) and not is_of({}, row)
    (row,) = rank(make_search(), [make_record(3, [])])
    assert identity(row) == {"trial": 3, "epoch": 0}


@pytest.mark.parametrize(
    ("values", "shown"), [([], ""), ([0.5], "0.500"), ([0.4, 0.6], "0.500±0.141")]
)
def test_a_mean_is_shown_with_the_deviation_of_several_runs(
    make_search: Make, make_record: Make, values: list[float], shown: str
) -> None:
    runs = [finished(make_record, n, value, depth=2) for n, value in enumerate(values, start=1)]
    for run in runs:
        run.confirms = 0
    row, *_ = rank(make_search(), [finished(make_record, 0, 0.5, depth=2), *runs])
    assert show_mean(row) == shown


# -- the table ------------------------------------------------------------------------------------


def test_headings_are_the_shortest_that_tell_apart() -> None:
    space = read_space(
        {
            "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
            "train.head.lr": {"log": [1e-4, 1e-2]},
            "train.unfreeze.depth": {"int": [0, 3]},
        }
    )
    assert columns(space) == {
        "train.unfreeze.depth": "depth",
        "train.unfreeze.lr": "unfreeze.lr",
        "train.head.lr": "head.lr",
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.00123456, "0.0012"), (3, "3"), ("gradual", "gradual"), (1e-6, "1e-06")],
)
def test_a_cell_is_short(value: Any, shown: str) -> None:
    assert show(value) == shown


def test_the_table_marks_where_a_trial_came_from(make_search: Make, make_record: Make) -> None:
    config = make_search({"space": SPACE})
    space = read_space(SPACE)
    first = as_written(space, config)
    headless = {"train.unfreeze.depth": 0, "train.unfreeze.lr": 1e-3}  # no schedule at depth 0
    rows = rank(
        config,
        [
            make_record(0, [0.1, 0.3], origin="as written", parameters=first, end=End.PRUNED),
            make_record(1, [0.1, 0.2], parameters=headless),
            make_record(2, [], parameters=first, end=End.LOST),
        ],
    )
    assert [trial_name(row) for row in rows] == ["#0 as written", "#1", "#2"]
    table = markdown(space, rows).splitlines()
    assert table[0] == (
        "| rank | trial | val AP | AP50 | epoch | rung | fresh mean | depth | schedule | lr "
        "| state |"
    )
    assert table[2] == (
        "| 1 | #0 as written | 0.3000 | 0.6000 | 2 | 1 |  | 2 | gradual | 0.001 | pruned |"
    )
    assert table[3] == "| 2 | #1 | 0.2000 | 0.4000 | 2 | 1 |  | 0 | - | 0.001 | interrupted |"
    assert table[4].startswith("| 3 | #2 | - | - | - | 0 |") and table[4].endswith("| lost |")
    assert len({line.count("|") for line in table}) == 1


def test_a_value_ends_no_cell_of_the_table(make_search: Make, make_record: Make) -> None:
    config = make_search()
    space = read_space({"model.weights": {"choice": ["a|b", "c"]}})
    (row,) = rank(config, [make_record(0, [0.1], parameters={"model.weights": "a|b\n<i>"})])
    table = markdown(space, [row]).splitlines()
    assert len(table) == 3 and r"| a\|b\\n&lt;i&gt; |" in table[2]


def test_who_failed_at_its_confirmation_does_not_win(make_search: Make, make_record: Make) -> None:
    config = make_search({"search.confirm": {"top": 2, "seeds": 1}})
    records = [
        make_record(0, [0.1] + [0.55] * 9, end=End.FINISHED),
        make_record(1, [0.1] + [0.54] * 9, end=End.FINISHED),
        make_record(2, [0.1, 0.2], end=End.DIVERGED),
        make_record(3, [0.1] + [0.53] * 9, end=End.FINISHED),
    ]
    records[2].confirms, records[3].confirms = 0, 1
    rows = rank(config, records)
    assert winner(rows).record.number == 1
    assert [row.record.number for row in rows] == [1, 3, 0, 2]
    records[2].end = None  # it runs still
    assert winner(rank(config, records)).record.number == 0
