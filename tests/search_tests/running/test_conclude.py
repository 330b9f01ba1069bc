"""The end of a search: which states have a winner."""

from collections.abc import Callable
from typing import Any

import pytest

from search.reporting.progress import Quiet
from search.running.conclude import conclude, tracking_timeout
from search.space.space import read_space
from search.study.record import End
from search.study.search_state import SearchState
from search.study.start_or_resume import open_search
from trainer.data.dataset import Splits

from ..conftest import SPACE, MadeUp

Make = Callable[..., Any]


@pytest.mark.parametrize(
    "state", [SearchState.RUNNING, SearchState.INTERRUPTED, SearchState.DISK_FULL]
)
def test_a_search_that_is_to_be_continued_exports_no_winner(
    make_search: Make, make_reports: Make, tiny: Splits, state: SearchState
) -> None:
    config = make_search({"space": SPACE, "tracking": "off"})
    space = read_space(config.space)
    study = open_search(config, space, tiny)
    study.ask(space, config)
    for report in make_reports([0.1, 0.2, 0.3, 0.4]):
        study.record(0, report)
    study.end(0, End.FINISHED)
    study.state = state
    result = conclude(config, space, tiny, study, Quiet())
    assert result.winner is not None and not result.metrics
    assert not (config.folder / "winner").exists()
    assert study.winner is None


def test_mlflow_gets_a_minute_and_more_for_each_trial(made_up: MadeUp) -> None:
    assert tracking_timeout(made_up.study) == 60 + len(made_up.study.records) / 4
