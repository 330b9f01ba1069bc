"""Small studies, for the tests of what is said of a search."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.space.space import read_space
from search.study.record import End
from search.study.search_state import SearchState
from search.study.start_or_resume import open_search
from search.study.storage import open_study
from search.study.study import Study
from trainer.data.dataset import Splits

from ..conftest import SPACE

Make = Callable[..., Any]


@pytest.fixture
def make_study(make_search: Make, make_reports: Make) -> Callable[[list[list[float]]], Study]:
    """Makes a finished study of trials with these APs, the baseline first.

    A trial without an AP is lost.
    """

    def make(maps: list[list[float]]) -> Study:
        study = open_study(Path("kept"), "tiny", trials=9)
        study.state = SearchState.DONE
        baseline = {"train.unfreeze.lr": 1e-3, "train.unfreeze.depth": 2}
        study.enqueue({**baseline, "train.unfreeze.schedule": "gradual"}, "as written")
        for number, values in enumerate(maps):
            study.ask(read_space(SPACE), make_search({"space": SPACE}))
            for report in make_reports(values):
                study.record(number, report)
            study.end(number, End.FINISHED if values else End.LOST)
        return study

    return make


@pytest.fixture
def begun(make_search: Make, make_reports: Make, tiny: Splits) -> Study:
    """A search with one finished trial and one that runs."""
    config = make_search({"space": SPACE})
    study = open_search(config, read_space(SPACE), tiny)
    study.state = SearchState.RUNNING
    for _ in range(2):
        study.ask(read_space(SPACE), config)
    for report in make_reports([0.1] * 9 + [0.25]):
        study.record(0, report)
    study.end(0, End.FINISHED)
    return study


@pytest.fixture
def study(make_search: Make, make_reports: Make) -> Study:
    """A study of two trials: one pruned, one in its head phase."""
    study = open_study(Path("kept"), "tiny", trials=6)
    for _ in range(2):
        study.ask(read_space(SPACE), make_search())
    for report in make_reports([0.1, 0.25]):
        study.record(0, report)
    study.end(0, End.PRUNED)
    study.record(1, make_reports([0.1], forked=1)[0])
    return study


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step counts as long after hundredths of a second."""
    monkeypatch.setattr("search.reporting.progress.NOTICED", 0.01)
    monkeypatch.setattr("search.reporting.live_table.NOTICED", 0.01)
    monkeypatch.setattr("search.reporting.progress.SILENCE", 0.05)


def has_said(out: io.StringIO, text: str) -> bool:
    """Whether the text comes out within half a minute."""
    deadline = time.monotonic() + 30
    while text not in out.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    return text in out.getvalue()
