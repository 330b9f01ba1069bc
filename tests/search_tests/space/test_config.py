"""The fields of a search's configuration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.space.validation import checked_config

from ..conftest import errors_of

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [("90s", 90), ("1.5m", 90), ("2h", 7200), (" 1 d ", 86400), (45, 45), (None, None)],
)
def test_a_time_budget_is_a_duration(make_raw: Make, budget: Any, seconds: Any) -> None:
    config = checked_config(make_raw({"search.time_budget": budget}), Path())
    assert config.search.time_budget == seconds


@pytest.mark.parametrize("budget", ["2", "h", "-1h", "1h30m", "1w", 0, "0s", -5])
def test_a_time_budget_that_is_no_duration_is_refused(make_raw: Make, budget: Any) -> None:
    (error,) = errors_of(checked_config, make_raw({"search.time_budget": budget}), Path())
    assert error.startswith("search.time_budget: ")


def test_a_resolved_config_is_plain_json(make_search: Make) -> None:
    assert json.loads(json.dumps(make_search().model_dump(mode="json")))["name"] == "tiny"
