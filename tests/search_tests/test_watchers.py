"""What watches a search tells, and cannot stop it."""

import io
import logging
import re
import signal
from pathlib import Path

import pytest
from rich.console import Console

from search.progress import Lines
from search.report import read_result
from search.tracking import NoTracking
from search.watchers import Watchers, code_version, try_report

from .conftest import MadeUp

ROOT = Path(__file__).parents[2]


def test_a_report_that_fails_is_told_and_loses_nothing(
    made_up: MadeUp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Path:
        raise OSError("no room")

    monkeypatch.setattr("search.watchers.write_report", fail)
    with caplog.at_level(logging.WARNING):
        assert try_report(read_result(made_up.config, made_up.study), made_up.study) is None
    assert "the report could not be written (OSError: no room)" in caplog.text


def test_the_code_is_told_by_version_and_commit() -> None:
    tags = code_version()
    assert tags["unfreeze.version"]
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}", tags["mlflow.source.git.commit"])


def test_ctrl_c_is_answered_before_tune_minds_it() -> None:
    seen: list[int] = []
    out = io.StringIO()
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        Watchers(NoTracking(), Lines(Console(file=out, width=200)), lambda: None).setup()
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert out.getvalue().startswith("stopping its trials")
    assert seen == [signal.SIGINT]
