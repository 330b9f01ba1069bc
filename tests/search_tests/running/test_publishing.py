"""What a search publishes, and that no failure of it ends the search."""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from search.ranking.gain_sentence import describe_gain
from search.ranking.ranking import rank
from search.reporting.report import read_result
from search.running import publishing
from search.running.publishing import code_version, try_report
from search.study.record import End, TrialRecord
from trainer.data.dataset import Splits

from ..conftest import MadeUp

Patch = pytest.MonkeyPatch

ROOT = Path(__file__).parents[3]


def test_a_report_that_fails_is_a_warning_and_loses_nothing(
    made_up: MadeUp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Path:
        raise OSError("no room")

    monkeypatch.setattr("search.running.publishing.write_report", fail)
    with caplog.at_level(logging.WARNING):
        assert try_report(read_result(made_up.config, made_up.study), made_up.study) is None
    assert "the report could not be written (OSError: no room)" in caplog.text


def test_mlflow_shows_the_gain_in_the_words_of_the_report(
    made_up: MadeUp, tiny: Splits, make_record: Callable[..., TrialRecord], monkeypatch: Patch
) -> None:
    records = [
        make_record(0, [0.1] + [0.3] * 9, origin="as written", end=End.FINISHED),
        make_record(1, [0.1] + [0.5] * 9, parameters={"n": 1}, end=End.FINISHED),
    ]
    for number, value in ((0, 0.3), (1, 0.4), (0, 0.31), (1, 0.41)):
        record = make_record(len(records), [0.1] + [value] * 9, end=End.FINISHED)
        record.confirms, record.seed = number, len(records)
        records.append(record)
    rows = rank(made_up.config, records)
    made = read_result(made_up.config, made_up.study)
    result = replace(made, rows=rows, winner=rows[0], metrics={})
    monkeypatch.setattr(publishing, "read_result", lambda *_: result)
    description = publishing._describe(made_up.config, tiny, made_up.study, None)
    gain = describe_gain(made_up.config, rows, rows[0])
    assert gain.endswith("That is more than luck.")
    assert gain in description.tags["mlflow.note.content"]
    assert description.tags["unfreeze.best_map"] == "0.4050"  # of the fresh runs
    assert description.metrics["gain/difference"] == pytest.approx(0.1)
    assert 0 < description.metrics["gain/low"] < 0.1 < description.metrics["gain/high"]


def test_the_code_is_named_by_version_and_commit() -> None:
    tags = code_version()
    assert tags["unfreeze.version"]
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}", tags["mlflow.source.git.commit"])
