"""Why a search stops before its trials are done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.running.tune.stopping import SearchStopper
from search.study.lock import request_stop, withdraw_stop_request
from search.study.record import End, TrialRecord
from search.study.search_state import SearchState
from search.study.storage import open_study
from search.study.study import Study

Make = Callable[..., Any]
TRACEBACK = """Traceback (most recent call last):
  File "a.py", line {outer}, in run
  File "b.py", line {line}, in load
{error}"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return open_study(tmp_path, "tiny")


def fail(study: Study, error: str, line: int = 7, end: End = End.ERROR) -> None:
    number = len(study.records)
    text = TRACEBACK.format(outer=number, line=line, error=error)
    study.records[number] = TrialRecord(number, "sampled", {}, end=end, text=text)


def test_three_equal_errors_stop_the_search_with_that_error(study: Study, tmp_path: Path) -> None:
    stopping = SearchStopper(study, tmp_path, None)
    for _ in range(2):
        fail(study, "KeyError: 'x'")
    fail(study, "KeyError: 'x'", line=8)
    fail(study, "KeyError: 'y'")
    assert not stopping.stop_all() and stopping.state is None
    fail(study, "KeyError: 'x'")
    assert stopping.stop_all()
    assert stopping.state == SearchState.FAILED
    assert stopping.reason.endswith("File \"b.py\", line 7, in load\nKeyError: 'x'")


def test_errors_that_differ_in_numbers_alone_are_the_same(study: Study, tmp_path: Path) -> None:
    stopping = SearchStopper(study, tmp_path, None)
    for number in range(3):
        fail(study, f"PermissionError: 'trials/{number}'")
    assert stopping.stop_all() and stopping.reason.endswith("PermissionError: 'trials/2'")


def test_errors_of_an_earlier_run_do_not_stop_the_next(study: Study, tmp_path: Path) -> None:
    for _ in range(3):
        fail(study, "KeyError: 'x'")
    stopping = SearchStopper(study, tmp_path, None)
    assert not stopping.stop_all()


def test_more_failures_than_allowed_stop_the_search(study: Study, tmp_path: Path) -> None:
    stopping = SearchStopper(study, tmp_path, 1)
    fail(study, "KeyError: 'x'")
    fail(study, "nan", end=End.DIVERGED)  # caused by its configuration: not a failure
    assert not stopping.stop_all()
    fail(study, "gone", end=End.LOST)
    assert stopping.stop_all()
    assert "2 trials failed; search.max_failed_trials is 1" in stopping.reason


def lose(study: Study, at: float) -> None:
    number = len(study.records)
    text = "its workers died again and again"
    study.records[number] = TrialRecord(number, "sampled", {}, end=End.LOST, text=text, ended=at)


def test_lost_trials_are_no_bug(study: Study, tmp_path: Path, make_record: Make) -> None:
    stopping = SearchStopper(study, tmp_path, None)
    for at in range(3):
        lose(study, at)
    assert not stopping.stop_all()
    study.records[3] = make_record(3, [0.1, 0.2])  # it reported at 1 s and 2 s
    for at in range(3, 100):
        if at % 5 == 0:
            study.records[3].times[2] = at
        lose(study, at)
        assert not stopping.stop_all()


def test_trials_that_are_all_lost_without_an_epoch_end_the_search(
    study: Study, tmp_path: Path, make_record: Make
) -> None:
    study.records[0] = make_record(0, [0.1, 0.2, 0.3], forked=2)
    stopping = SearchStopper(study, tmp_path, None)
    study.records[0].times = {1: 100.0, 2: 100.0, 3: 10.0}  # forked epochs do not count
    for at in range(9, 16):
        lose(study, at)
        assert not stopping.stop_all()
    lose(study, 16)
    assert stopping.stop_all() and stopping.state == SearchState.FAILED
    assert stopping.reason.startswith(
        "6 trials lost their worker or node 4 times each, and meanwhile"
    )


def test_as_many_as_run_at_once_may_be_lost_at_once(study: Study, tmp_path: Path) -> None:
    stopping = SearchStopper(study, tmp_path, None, lambda: 8)
    for _ in range(15):
        lose(study, 1)
    assert not stopping.stop_all()
    lose(study, 1)
    assert stopping.stop_all()


def test_a_request_stops_the_search_once(study: Study, tmp_path: Path) -> None:
    request_stop(tmp_path)
    withdraw_stop_request(tmp_path)  # meant for an earlier driver
    stopping = SearchStopper(study, tmp_path, None)
    assert not stopping.stop_all()
    request_stop(tmp_path)
    assert stopping.stop_all() and stopping.state == SearchState.STOPPED
    assert not SearchStopper(study, tmp_path, None).stop_all()


def test_a_full_disk_stops_the_search(study: Study, tmp_path: Path) -> None:
    stopping = SearchStopper(study, tmp_path, None)
    study.full_disk = "No space left on device"
    assert stopping.stop_all()
    assert (stopping.state, stopping.reason) == ("disk full", "No space left on device")


def test_a_dead_ray_interrupts_the_search(study: Study, tmp_path: Path) -> None:
    slots = [2]
    stopping = SearchStopper(study, tmp_path, None, lambda: slots[0], grows=False)
    assert not stopping.stop_all()
    slots[0] = 0
    assert stopping.stop_all() and stopping.state == SearchState.INTERRUPTED


def test_a_search_waits_for_nodes_and_says_so_once(
    study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slots = [0]
    stopping = SearchStopper(study, tmp_path, None, lambda: slots[0])
    assert not stopping.stop_all() and not stopping.stop_all()
    assert caplog.text.count("waiting for one") == 1
    slots[0] = 1
    assert not stopping.stop_all()
    slots[0] = 0
    assert not stopping.stop_all()
    assert caplog.text.count("waiting for one") == 2
