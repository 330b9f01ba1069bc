"""The study in a database: the same search, and optuna-dashboard opens it."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from optuna.trial import TrialState

from search.space.space import read_space
from search.study.record import End
from search.study.search_state import SearchState
from search.study.storage import open_study, read_study
from trainer.config import InputError

from .conftest import SPACE

Make = Callable[..., Any]


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if request.param == "journal":
        return None
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return str(request.getfixturevalue("postgresql"))


def test_a_study_is_the_same_wherever_it_is_kept(
    uri: str | None, make_search: Make, make_reports: Make, tmp_path: Path
) -> None:
    space, base_config = read_space(SPACE), make_search({"space": SPACE})
    study = open_study(tmp_path, "kept", uri, seed=3, trials=6)
    study.state = SearchState.RUNNING
    study.enqueue({"train.unfreeze.lr": 2e-3, "train.unfreeze.depth": 0}, "first")
    configs = [study.ask(space, base_config)[1] for _ in range(3)]
    for report in make_reports([0.1, 0.3]):
        study.record(0, report)
    study.end(0, End.FINISHED)
    study.record(1, make_reports([0.2])[0])
    study.end(2, End.DIVERGED, "nan")

    again = open_study(tmp_path, "kept", uri, seed=3, trials=6)
    again.release_running()
    assert again.state == SearchState.RUNNING
    assert again.waiting == [1]
    assert again.records[0].reports == study.records[0].reports
    assert [r.end for r in again.records.values()] == [End.FINISHED, None, End.DIVERGED]
    states = [t.state for t in again.optuna.get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.WAITING, TrialState.PRUNED]
    assert again.ask(space, base_config) == (1, configs[1])
    assert read_study(tmp_path, "kept", uri).records[1].reports == again.records[1].reports


def fetch(app: Any, path: str) -> Any:
    """The JSON that a WSGI application answers with."""
    request: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
    setup_testing_defaults(request)
    statuses: list[str] = []
    body = b"".join(app(request, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"], body
    return json.loads(body)


def test_optuna_dashboard_opens_it(
    uri: str | None, make_search: Make, make_reports: Make, tmp_path: Path
) -> None:
    study = open_study(tmp_path, "shown", uri)
    study.ask(read_space(SPACE), make_search({"space": SPACE}))
    for report in make_reports([0.1, 0.3]):
        study.record(0, report)
    study.end(0, End.FINISHED)
    app = importlib.import_module("optuna_dashboard").wsgi(study.storage)
    listed = fetch(app, "/api/studies")["study_summaries"]
    (number,) = [s["study_id"] for s in listed if s["study_name"] == "shown"]
    trials = fetch(app, f"/api/studies/{number}")["trials"]
    assert [(t["state"], t["values"]) for t in trials] == [("Complete", [0.3])]


def test_a_database_that_cannot_be_opened_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study: sqlite:////dev/null/x.db cannot be opened: "):
        open_study(tmp_path, "kept", "sqlite:////dev/null/x.db")
    with pytest.raises(InputError, match=r"study: mars://me:\*\*\*@host/x cannot be opened: "):
        open_study(tmp_path, "kept", "mars://me:secret@host/x")
