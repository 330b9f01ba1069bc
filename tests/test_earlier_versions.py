"""What version 0.1.0 wrote is read today: an export, a checkpoint, and a search that goes on.

`recorded/recorded-0.1.0.tar.xz` holds what that version left of a search of three trials on 18
small pictures, the second trial interrupted after epoch 6 of 10: the folder of the search, the
export of a winner, and what that version then said of this export. To keep the archive small, its
weights were rounded to few values before that was asked, and optimizer moments are constants.
"""

import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from search.exports.evaluate import evaluate_model
from search.reporting.progress import Lines
from search.running.driver import run
from search.study.reading import load_study, read_search_config
from search.study.record import End, TrialRecord
from trainer.data.loading import load
from trainer.epoch_report import EpochReport
from trainer.model.checkpoint import BEST, LAST, load_last
from trainer.training.fit import fit

ARCHIVE = Path(__file__).parent / "recorded" / "recorded-0.1.0.tar.xz"
EPOCHS, STOPPED_AFTER = 10, 6


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The unpacked archive, which is the working folder too."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "recorded-0.1.0").rename(tmp_path / "searches")
    folder = tmp_path / "searches"
    file = folder / "old" / "search.yaml"
    file.write_text(file.read_text().replace("DATA/", f"{folder / 'data'}/"))
    monkeypatch.chdir(tmp_path)
    return folder


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def records(folder: Path) -> dict[int, TrialRecord]:
    return load_study(read_search_config("old", folder)).records


def test_an_export_finds_what_it_found(recorded: Path) -> None:
    file = recorded / "found.json"
    metrics = evaluate_model(str(recorded / "export"), recorded / "data", "val", recorded, file)
    assert metrics["figures"] == pytest.approx(read(recorded / "figures.json"), abs=1e-3)

    found = sorted(read(file), key=lambda row: -row["score"])
    for row, before in zip(found, read(recorded / "detections.json"), strict=False):
        assert row.pop("bbox") == pytest.approx(before.pop("bbox"), abs=0.01)
        assert row == pytest.approx(before, abs=1e-3)


def test_a_trial_goes_on_from_its_checkpoint(recorded: Path) -> None:
    folder = recorded / "old" / "trials" / "1"
    checkpoint = load_last(folder)
    assert checkpoint is not None
    assert [report["epoch"] for report in checkpoint["reports"]] == [*range(1, STOPPED_AFTER + 1)]

    config = read_search_config("old", recorded)
    unfreeze = config.train.unfreeze.model_copy(update={"depth": "all"})
    train = config.train.model_copy(update={"unfreeze": unfreeze})
    data = load(config.data, recorded / "cache", config.folder)
    reports: list[EpochReport] = []

    def keep(report: EpochReport) -> bool:
        reports.append(report)
        return True

    result = fit(config.model_copy(update={"train": train}), data, folder, keep)
    assert result.epochs == EPOCHS
    was = records(recorded)[1].reports
    assert {report.epoch: report for report in reports[:STOPPED_AFTER]} == was
    assert all(np.isfinite(list(report.losses.values())).all() for report in reports)
    assert len({json.dumps(report.environment) for report in reports}) == 2  # it is told


def test_a_search_goes_on(recorded: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = records(recorded)
    assert {n: r.end for n, r in before.items()} == {0: End.FINISHED, 1: None, 2: End.PRUNED}
    assert len(before[1].reports) == STOPPED_AFTER
    said = io.StringIO()

    result = run(read_search_config("old", recorded), Lines(Console(file=said, width=200)))

    after = records(recorded)
    assert [after[n] for n in (0, 2)] == [before[n] for n in (0, 2)]
    assert after[1].end is not None and len(after[1].reports) > STOPPED_AFTER
    told = [asdict(after[1].reports[epoch]) for epoch in before[1].reports]
    assert told == [asdict(report) for report in before[1].reports.values()]
    assert "trial 1 continues from epoch 7 with" in caplog.text
    assert len(result.rows) == 3
    assert (recorded / "old" / "winner" / "model.safetensors").is_file()
    assert not (recorded / "old" / "trials" / "1" / LAST).exists()
    assert (recorded / "old" / "trials" / "1" / BEST).is_file()
