"""The live table, on a terminal and in a notebook."""

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from search.ranking.forecast import expected_epochs
from search.reporting.live_table import LiveTable, NotebookTable
from search.study.record import End
from search.study.study import Study

from .conftest import has_said

Make = Callable[..., Any]


@pytest.mark.usefixtures("hasty")
def test_a_step_on_a_terminal_shows_its_seconds_and_stays() -> None:
    out = io.StringIO()
    with LiveTable(Console(file=out, width=200, force_terminal=True)).step("starting Ray") as count:
        count(1, 2)
        assert has_said(out, "starting Ray (1 of 2, 0 s)")
        time.sleep(0.02)
    assert out.getvalue().endswith("starting Ray (0 s)\n")


def test_the_live_table_shows_trials_and_epochs(study: Study, make_search: Make) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    table = LiveTable(console)
    table.start(make_search(), study, lambda: 1)
    table.update(0)
    shown = Console(file=(text := io.StringIO()), width=120)
    shown.print(table._render())
    table.close()
    table.close()
    assert "#0" in text.getvalue() and "pruned" in text.getvalue()
    assert "#1" in text.getvalue() and "running" in text.getvalue()
    assert "1 of 6 trials, 2 epochs, 0:00" in text.getvalue()


def test_the_time_left_runs_down_between_epochs(
    study: Study, make_search: Make, make_reports: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("search.reporting.live_table.time.monotonic", lambda: now)
    table = LiveTable(Console(file=io.StringIO()))
    config = make_search()
    table.start(config, study, lambda: 1)
    table.close()
    assert "to go" not in table._summary(1)
    now = 10.0
    study.record(1, make_reports([0.1, 0.3])[1])
    left = 10 * (expected_epochs(config, 1) - 3)
    for now in (10.0, 14.0):
        minutes, seconds = divmod(left - (now - 10), 60)
        assert f", about {minutes:.0f}:{seconds:02.0f} to go" in table._summary(1)


@pytest.mark.usefixtures("hasty")
def test_in_a_notebook_one_output_is_drawn_again(
    study: Study, make_search: Make, make_reports: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    class Output:
        def update(self, page: Any) -> None:
            shown.append(page.data)

    def display(page: Any, display_id: bool) -> Output:
        shown.append(page.data)
        return Output()

    monkeypatch.setattr("IPython.display.display", display)
    out = io.StringIO()
    table = NotebookTable(Console(file=out, width=100))
    table.say("exporting trial 0")
    with table.step("starting Ray"):
        assert has_said(out, "starting Ray\n")
    table.start(make_search(), study, lambda: 1)
    study.record(1, make_reports([0.1, 0.5])[1])
    study.end(1, End.FINISHED)
    table.update(1)
    table.close()
    assert out.getvalue().startswith("exporting trial 0\n")
    assert "1 of 6 trials" in shown[0] and "2 of 6 trials" in shown[-1]
    assert not any("\x1b" in page for page in shown)
    count = len(shown)
    time.sleep(0.2)
    assert len(shown) == count
