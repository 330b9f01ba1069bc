"""What watches the trials hears of each, and cannot stop the search."""

import io
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from search.reporting.progress import Lines, Quiet
from search.running.tune.watchers import Watchers
from search.tracking.tracking import NoTracking


def test_ctrl_c_is_answered_before_tune_handles_it() -> None:
    seen: list[int] = []
    out = io.StringIO()
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        Watchers(NoTracking(), Lines(Console(file=out, width=200)), lambda: None).setup()
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert out.getvalue().startswith("stopping the trials")
    assert seen == [signal.SIGINT]


class Recorded(NoTracking):
    """The rows that MLflow would be asked to fill in."""

    def __init__(self) -> None:
        self.woken: list[int | None] = []

    def wake(self, number: int | None) -> None:
        self.woken.append(number)


def test_an_ended_trial_updates_the_search_and_deletes_checkpoints(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracking, calls = Recorded(), [0]

    def retention() -> None:
        calls[0] += 1
        raise OSError("the disk")

    watchers = Watchers(cast("Any", tracking), Quiet(), retention)
    trial = SimpleNamespace(config={"number": 3})
    watchers.on_trial_start(0, [], trial)
    watchers.on_trial_result(0, [], trial, {})
    assert (tracking.woken, calls) == ([3, 3], [0])
    watchers.on_trial_complete(0, [], trial)
    watchers.on_trial_error(0, [], trial)
    assert (tracking.woken, calls) == ([3, 3, 3, None, 3, None], [2])
    assert [r.message for r in caplog.records] == [
        "checkpoints that are not needed stay (the disk)"
    ]


def test_a_closed_terminal_does_not_keep_checkpoints() -> None:
    class Closed(Quiet):
        def update(self, number: int) -> None:
            raise BrokenPipeError

    calls: list[int] = []
    watchers = Watchers(NoTracking(), Closed(), lambda: calls.append(1))
    watchers.on_trial_complete(0, [], SimpleNamespace(config={"number": 3}))
    assert calls == [1]
