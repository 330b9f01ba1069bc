"""The gain over the baseline, in words."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from search.ranking.gain import gain, gain_metrics, is_same_head
from search.ranking.gain_sentence import describe_gain
from search.ranking.ranking import rank, winner
from search.ranking.row import Row
from search.space.config import SearchConfig
from search.study.record import End, TrialRecord

Make = Callable[..., Any]
CLEAR = "That is more than luck."
UNCLEAR = "may be luck"


def best_of(rows: list[Row]) -> Row:
    """The winner."""
    best = winner(rows)
    assert best is not None
    return best


def sentence(config: SearchConfig, rows: list[Row]) -> str:
    """What is said of the winner's gain."""
    return describe_gain(config, rows, best_of(rows))


def test_a_gain_is_described_with_its_interval_and_the_runs_it_comes_from(made: Make) -> None:
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.40, 0.41], [0.2])
    result = gain(rows, best_of(rows))
    assert result is not None and result.interval is not None
    assert result.difference == pytest.approx(0.1)
    # Student's t of 2 degrees is 4.303; each mean has a variance of 0.00005 / 2
    assert result.interval == pytest.approx(
        (0.1 - 4.303 * 0.00005**0.5, 0.1 + 4.303 * 0.00005**0.5), abs=1e-5
    )
    assert gain_metrics(rows, best_of(rows)) == {
        "gain/difference": result.difference,
        "gain/low": result.interval[0],
        "gain/high": result.interval[1],
    }
    assert sentence(config, rows) == (
        "With other seeds the winner came to 0.405 val AP (mean of 2 runs) and the baseline (the "
        "configuration in search.yaml) to 0.305 val AP (mean of 2 runs): +0.100 (95 % interval "
        "+0.070 to +0.130). That is more than luck."
    )


def test_the_interval_allows_for_several_configurations_to_choose_from(made: Make) -> None:
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.40, 0.41], [0.4, 0.34, 0.35])
    assert "+0.130, the winner being the best of 2)" in sentence(config, rows)


@pytest.mark.parametrize(("lead", "clear"), [(0.029, False), (0.031, True)])
def test_what_does_not_clear_zero_may_be_luck(made: Make, lead: float, clear: bool) -> None:
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.30 + lead, 0.31 + lead])  # 0.0304 is the half
    line = sentence(config, rows)
    assert (CLEAR in line, UNCLEAR in line) == (clear, not clear)
    assert ("set search.confirm.seeds to 4" in line) is not clear


def test_the_run_that_chose_the_winner_counts_for_nothing(made: Make) -> None:
    for chosen_by in (0.35, 0.95):
        config, rows = made([0.3, 0.30, 0.31], [chosen_by, 0.31, 0.32])
        result = gain(rows, best_of(rows))
        assert result is not None and result.difference == pytest.approx(0.01)
        assert UNCLEAR in sentence(config, rows)


def test_from_one_run_each_no_luck_is_known(made: Make) -> None:
    config, rows = made([0.3, 0.30], [0.5, 0.40])
    assert sentence(config, rows) == (
        "With other seeds the winner came to 0.400 val AP (one run) and the baseline (the "
        "configuration in search.yaml) to 0.300 val AP (one run): +0.100. With one run each this "
        "may be luck; set search.confirm.seeds to 3 and give the same command again."
    )
    assert gain_metrics(rows, best_of(rows)) == {"gain/difference": pytest.approx(0.1)}


def test_a_baseline_that_asha_stopped_is_compared_by_its_fresh_runs(
    made: Make,
) -> None:
    config, rows = made([0.2, 0.30, 0.31], [0.5, 0.40, 0.41], ends={0: End.PRUNED})
    assert CLEAR in sentence(config, rows)
    config, rows = made([0.2, 0.50, 0.51], [0.5, 0.40, 0.41], ends={0: End.PRUNED})
    assert sentence(config, rows) == (
        "The baseline (the configuration in search.yaml) won: with other seeds it came to 0.505 "
        "val AP (mean of 2 runs) and the best of the others to 0.405 val AP (mean of 2 runs)."
    )


def test_runs_that_failed_are_counted(made: Make) -> None:
    config, rows = made([0.3, 0.30, 0.31], [0.5, 0.40, -1])
    assert "0.400 val AP (one run, 1 more did not finish)" in sentence(config, rows)
    config, rows = made([0.3, -1, -1], [0.5, 0.40, 0.41])
    line = sentence(config, rows)
    assert "that takes runs of both with other seeds" in line and UNCLEAR in line


@pytest.mark.parametrize(
    ("runs", "ends", "part"),
    [
        (
            ([0.3], [0.5, 0.4]),
            {},
            "set search.confirm.seeds to 3 and give the same command again, which",
        ),
        (
            ([0.3], [0.5, 0.4, 0.4, 0.4]),
            {},
            "set search.confirm.seeds to 4 and give the same command",
        ),
        (([0.3], [0.5]), {}, "that takes runs of both with other seeds, which have not all"),
        (([0.2], [0.5]), {0: End.PRUNED}, "to 0.200, after 1 unfreeze epochs only. The winner was"),
        (
            ([0.3], [0.5, 0.4]),
            {0: End.DIVERGED},
            "ended as diverged, so the gain over it is not known",
        ),
        (
            ([0.5], [0.3]),
            {},
            "(the configuration in search.yaml) won: nothing that was tried beat it.",
        ),
        (([0.5], [0.3]), {1: End.PRUNED}, "no other trial trained as many epochs"),
    ],
)
def test_without_fresh_runs_of_both_no_gain_is_known(
    made: Make, runs: Any, ends: dict[int, End], part: str
) -> None:
    config, rows = made(*runs, ends=ends)
    assert part in sentence(config, rows) and gain(rows, best_of(rows)) is None
    assert gain_metrics(rows, best_of(rows)) == {}


def test_without_confirming_the_next_step_is_to_confirm(
    make_search: Make, make_record: Make
) -> None:
    records = [
        make_record(0, [0.1] + [0.3] * 9, origin="as written", end=End.FINISHED),
        make_record(1, [0.1] + [0.4] * 9, parameters={"n": 1}, end=End.FINISHED),
    ]
    config = make_search()
    rows = rank(config, records)
    assert sentence(config, rows) == (
        "During training the winner came to 0.400 val AP and the baseline (the "
        "configuration in search.yaml) to 0.300. The winner was chosen by that run, so the "
        "difference may be luck; search.confirm trains both again with other seeds."
    )
    assert describe_gain(config, rows[1:], rows[1]) == ""
    assert "has no result" in describe_gain(config, rows[:1], rows[0])


# -- where unfreezing improves neither, the runs compared are the same head ------------------------


def searched_and_confirmed(
    make_record: Make, baseline: list[list[float]], other: list[list[float]]
) -> list[TrialRecord]:
    """Trials of two configurations, the baseline first, then their runs with seeds 1, 2 and so on.

    Each run has the AP of the head phase, and the AP of its unfreeze epochs.
    """
    records = []
    for number, ((head, unfrozen), *_) in enumerate((baseline, other)):
        origin = "sampled" if number else "as written"
        maps = [head] + [unfrozen] * 9
        parameters = {"n": number}
        records.append(
            make_record(number, maps, origin=origin, end=End.FINISHED, parameters=parameters)
        )
    for number, (_, *fresh) in enumerate((baseline, other)):
        for seed, (head, unfrozen) in enumerate(fresh, start=1):
            record = make_record(len(records), [head] + [unfrozen] * 9, end=End.FINISHED)
            record.confirms, record.seed = number, seed
            records.append(record)
    return records


def test_where_all_best_epochs_are_of_shared_heads_no_gain_is_known(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.confirm": {"top": 2, "seeds": 2}})
    heads = [[0.31, 0.2], [0.33, 0.2]]
    records = searched_and_confirmed(make_record, [[0.3, 0.2], *heads], [[0.3, 0.4], *heads])
    rows = rank(config, records)
    assert best_of(rows).record.number == 1
    assert sentence(config, rows) == (
        "With other seeds the winner and the baseline (the configuration in search.yaml) came to "
        "the same best epochs, of the head phases that they share: 0.320 val AP (mean of 2 runs). "
        "Unfreezing improved neither, so these runs do not compare the configurations."
    )
    assert gain(rows, best_of(rows)) is None and gain_metrics(rows, best_of(rows)) == {}


def test_a_baseline_that_won_by_a_shared_head_beat_nothing(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.confirm": {"top": 2, "seeds": 1}})
    runs = [[0.3, 0.2], [0.31, 0.2]]
    rows = rank(config, searched_and_confirmed(make_record, runs, runs))
    assert best_of(rows).record.number == 0
    assert sentence(config, rows) == (
        "The baseline (the configuration in search.yaml) won: with other seeds it and the best of "
        "the others came to the same best epochs, of the head phases that they share: 0.310 val "
        "AP (one run). Unfreezing improved neither, so these runs do not compare the "
        "configurations."
    )


def test_seeds_whose_best_epoch_is_of_a_shared_head_are_counted(
    make_search: Make, make_record: Make
) -> None:
    config = make_search({"search.confirm": {"top": 2, "seeds": 2}})
    baseline, other = [[0.3, 0.2], [0.31, 0.2], [0.33, 0.2]], [[0.3, 0.4], [0.31, 0.2], [0.33, 0.4]]
    counted = "For 1 of 2 seeds both have the same best epoch, of the head phase that they share."
    rows = rank(config, searched_and_confirmed(make_record, baseline, other))
    assert sentence(config, rows).endswith(counted)
    result = gain(rows, best_of(rows))
    assert result is not None and result.difference == pytest.approx(0.035)
    rows = rank(config, searched_and_confirmed(make_record, other, baseline))
    assert "won: with other seeds it came to 0.355" in sentence(config, rows)
    assert sentence(config, rows).endswith(counted)


def test_before_confirming_a_shared_head_is_named_too(make_search: Make, make_record: Make) -> None:
    records = searched_and_confirmed(make_record, [[0.3, 0.2]], [[0.3, 0.2]])
    stopped = make_record(0, [0.3, 0.2], origin="as written", end=End.PRUNED)
    rows = rank(make_search(), [stopped, records[1]])
    assert sentence(make_search(), rows) == (
        "During training the winner and the baseline (the configuration in search.yaml) came to "
        "the same best epoch, of the head phase that they share: 0.300 val AP. Unfreezing improved "
        "neither, so these runs do not compare the configurations."
    )


def test_equal_aps_are_the_same_head_only_with_equal_losses(make_record: Make) -> None:
    head, again = (make_record(number, [0.3, 0.2]) for number in range(2))
    assert is_same_head(head, again)
    again.reports[1] = replace(again.reports[1], losses={"classification": 0.9})
    assert not is_same_head(head, again)
    unfrozen = make_record(2, [0.2, 0.3])
    assert not is_same_head(unfrozen, unfrozen) and not is_same_head(head, make_record(3, []))
