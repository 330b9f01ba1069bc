"""A trial that continues in another environment names the epoch and what changed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from search.study.environment_changes import describe_change, describe_changes

Make = Callable[..., Any]
OLD = {"hardware": "AVX2 0a1b2c3d", "code": "12345678", "torch": "2.14.1"}
NEW = OLD | {"code": "abcdef01", "torch": "2.15.0"}


def test_each_change_of_the_environment_is_a_line(make_record: Make) -> None:
    record = make_record(3, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert describe_changes(record) == []
    for epoch, environment in enumerate(({}, OLD, OLD, NEW, NEW), start=1):
        record.reports[epoch] = replace(record.reports[epoch], environment=environment)
    assert describe_changes(record) == [
        "from epoch 2 with another version of Unfreeze",
        "from epoch 4 with code abcdef01 (was 12345678), torch 2.15.0 (was 2.14.1)",
    ]


def test_a_first_epoch_is_no_change(make_reports: Make) -> None:
    (report,) = make_reports([0.1])
    assert describe_change(None, replace(report, environment=OLD)) == ""
