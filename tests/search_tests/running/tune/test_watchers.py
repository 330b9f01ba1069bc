"""What watches the trials hears of each, and cannot stop the search."""

import io
import signal
from types import SimpleNamespace
from typing import Any, cast

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


def test_an_ended_trial_updates_the_search_and_deletes_checkpoints() -> None:
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
