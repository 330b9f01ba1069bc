"""What a search cost, computed from the study."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.ranking.costs import costs
from search.study.record import End
from search.study.storage import open_study

Make = Callable[..., Any]


def test_costs_count_epochs_trained_forked_and_saved(
    make_search: Make, make_record: Make, tmp_path: Path
) -> None:
    study = open_study(tmp_path, "tiny")
    study.allocations = [[0.0, {"cpus_per_trial": 2, "gpus_per_trial": 0.5}]]
    records = [
        make_record(0, [0.1] * 10, end=End.FINISHED),
        make_record(1, [0.1] * 2, end=End.PRUNED, forked=1),
        make_record(2, [0.1] * 4, end=End.DIVERGED, forked=1),
        make_record(3, [], end=End.LOST),
    ]
    study.records = {record.number: record for record in records}
    spent = costs(make_search(), study)  # one head epoch, nine unfreeze epochs
    assert spent.cpu_hours * 3600 == 56.0 and spent.gpu_hours * 3600 == 14.0
    assert (spent.trials, spent.epochs_run, spent.epochs_forked, spent.epochs_not_run) == (
        4,
        14,
        2,
        8,
    )
    assert spent.seconds == 28.0
    # the forked epochs, and those that the second trial did not run
    assert spent.seconds_without_savings == 28.0 + 2 * 2.0 + 8 * 2.0
    assert spent.images_from_cache == 0 and not spent.counts_cached_features


def test_stopped_epochs_do_not_depend_on_the_length_of_the_head_phase(
    make_search: Make, make_record: Make, tmp_path: Path
) -> None:
    study = open_study(tmp_path, "tiny")
    study.records = {0: make_record(0, [0.1] * 9, head=8, end=End.PRUNED)}
    spent = costs(make_search(), study)  # it ran one of nine unfreeze epochs
    assert spent.epochs_not_run == 8
    assert spent.seconds_without_savings == spent.seconds + 8 * 2.0


def test_cached_features_count_at_depths_where_their_speedup_was_measured(
    make_search: Make, make_record: Make, tmp_path: Path
) -> None:
    study = open_study(tmp_path, "tiny")
    study.cache_speedups = [1.5, 1.25]
    record = make_record(0, [0.1] * 10, end=End.FINISHED)
    depths = (0, 1, 2)
    for epoch, depth in enumerate(depths, start=1):
        changed = replace(record.reports[epoch], depth=depth, images_from_cache=10, seconds=4.0)
        record.reports[epoch] = changed
    study.records = {0: record}
    spent = costs(make_search(), study)
    assert spent.images_from_cache == 30 and spent.counts_cached_features
    assert spent.seconds == 3 * 4.0 + 7 * 2.0
    assert (
        spent.seconds_without_savings == spent.seconds + 4.0 * 0.5 + 4.0 * 0.25
    )  # none was measured at depth 2
