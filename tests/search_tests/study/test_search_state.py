"""Facts about a search, which its study stores under names that do not change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.study.search_state import SearchState
from search.study.storage import open_study

Make = Callable[..., Any]
FOLDER = Path("tiny")
FACTS = [
    ("state", "state", SearchState.OUT_OF_TIME),
    ("winner", "winner", {"trial": 3, "metrics": {"val": {}}}),
    ("precision", "precision", "bf16"),
    ("trunk_cache", "trunk_cache", 2),
    ("cache_speedups", "gains", [1.5, 1.2]),
    ("allocations", "shares", [[10.0, {"cpus_per_trial": 2.0}]]),
    ("data_digest", "data", "d" * 64),
    ("id", "id", "0123"),
    ("folder", "folder", "/searches/tiny"),
    ("test_looks", "looks", 2),
]
"""Property, its stored name, and a value."""


@pytest.mark.parametrize(("name", "stored", "value"), FACTS)
def test_a_fact_is_stored_under_its_name(name: str, stored: str, value: Any) -> None:
    study = open_study(FOLDER, "tiny")
    setattr(study, name, value)
    assert getattr(study, name) == value
    again = open_study(FOLDER, "tiny")
    assert getattr(again, name) == value
    assert again.optuna.user_attrs == {stored: value}


def test_a_new_study_has_no_facts() -> None:
    study = open_study(FOLDER, "tiny")
    assert (study.state, study.winner, study.trunk_cache, study.folder) == (None,) * 4
    assert (study.precision, study.data_digest, study.id) == ("", "", "")
    assert (len(study.cache_speedups), len(study.allocations), study.test_looks) == (0, 0, 0)


def test_a_stored_state_is_read_as_a_search_state() -> None:
    study = open_study(FOLDER, "tiny")
    for state in SearchState:
        study.optuna.set_user_attr("state", state.value)
        assert study.state is state
