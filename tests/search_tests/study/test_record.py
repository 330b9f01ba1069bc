"""What a trial's record says of its reports."""

import pickle
from collections.abc import Callable
from typing import Any

from search.study.record import End, from_json, to_json

Make = Callable[..., Any]


def test_a_report_is_the_same_after_its_way_from_a_worker(make_reports: Make) -> None:
    (report,) = make_reports([0.25])
    assert from_json(to_json(report)) == report


def test_best_last_and_best_until_follow_from_the_reports(make_record: Make) -> None:
    record = make_record(0, [0.05, 0.2, 0.4, 0.3], head=1)
    assert record.best.epoch == 3 and record.last.epoch == 4 and record.unfreeze_epoch == 3
    assert [record.best_until(e) for e in (1, 2, 3, 4)] == [0.2, 0.4, 0.4, None]
    empty = make_record(1, [])
    assert (empty.best, empty.last, empty.unfreeze_epoch) == (None, None, 0)
    assert empty.best_until(1) is None


def test_best_until_ignores_the_head_phase(make_record: Make) -> None:
    assert make_record(0, [0.5, 0.1], head=1).best_until(1) == 0.1


def test_a_record_can_be_pickled(make_record: Make) -> None:
    record = make_record(0, [0.1, 0.2], end=End.PRUNED)
    assert pickle.loads(pickle.dumps(record)) == record
