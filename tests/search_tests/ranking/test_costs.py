"""What a search cost, read off the study."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.ranking.costs import Costs, costs, duration, saved
from search.study.study import End, open_study

Make = Callable[..., Any]


def test_costs_count_epochs_trained_forked_and_saved(
    make_search: Make, make_record: Make, tmp_path: Path
) -> None:
    study = open_study(tmp_path, "tiny")
    study.set("shares", [[0.0, {"cpus_per_trial": 2, "gpus_per_trial": 0.5}]])
    records = [
        make_record(0, [0.1] * 10, end=End.FINISHED),
        make_record(1, [0.1] * 2, end=End.PRUNED, forked=1),
        make_record(2, [0.1] * 4, end=End.DIVERGED, forked=1),
        make_record(3, [], end=End.LOST),
    ]
    study.records = {record.number: record for record in records}
    found = costs(make_search(), study)  # one head epoch, nine unfreeze epochs
    assert found.cpu_hours * 3600 == 56.0 and found.gpu_hours * 3600 == 14.0
    assert (found.trials, found.run, found.forked, found.stopped) == (4, 14, 2, 8)
    assert found.seconds == 28.0
    # what was forked, and what the second did not run
    assert found.whole == 28.0 + 2 * 2.0 + 8 * 2.0
    assert found.read == 0 and not found.counts_kept


def test_costs_do_not_depend_on_how_long_a_head_phase_a_trial_drew(
    make_search: Make, make_record: Make, tmp_path: Path
) -> None:
    study = open_study(tmp_path, "tiny")
    study.records = {0: make_record(0, [0.1] * 9, head=8, end=End.PRUNED)}
    found = costs(make_search(), study)  # nine unfreeze epochs, of which it ran one
    assert found.stopped == 8
    assert found.whole == found.seconds + 8 * 2.0


def test_costs_count_what_kept_outputs_saved_where_it_was_measured(
    make_search: Make, make_record: Make, tmp_path: Path
) -> None:
    study = open_study(tmp_path, "tiny")
    study.set("gains", [1.5, 1.25])
    record = make_record(0, [0.1] * 10, end=End.FINISHED)
    depths = (0, 1, 2)
    for epoch, depth in enumerate(depths, start=1):
        changed = replace(record.reports[epoch], depth=depth, read=10, seconds=4.0)
        record.reports[epoch] = changed
    study.records = {0: record}
    found = costs(make_search(), study)
    assert found.read == 30 and found.counts_kept
    assert found.seconds == 3 * 4.0 + 7 * 2.0
    assert found.whole == found.seconds + 4.0 * 0.5 + 4.0 * 0.25  # of depth 2 nobody knows


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (840, "14 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_durations_have_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        (60.0, ""),
        (7200.0, "training took 60 s of trials' time; without forks and stops about 2.0 h"),
    ],
)
def test_what_was_saved_is_told_where_something_was(whole: float, text: str) -> None:
    assert saved(Costs(1, 2, 0, 0, 0, 60.0, whole, False, 0.0, 0.0)) == text
