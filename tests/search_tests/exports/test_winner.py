"""The winner's export, and the figures that are measured from it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.exports import winner
from search.exports.winner import export_winner
from search.ranking.row import Row
from search.reporting.progress import Quiet
from search.study.storage import open_study
from trainer.config import InputError
from trainer.data.dataset import Splits
from trainer.export.bundle import load_export, read_metrics, read_spec
from trainer.export.card import CARD
from trainer.model.checkpoint import BEST, load, save

from ..conftest import Trained

Make = Callable[..., Any]


class Recorded(Quiet):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_the_export_has_weights_spec_figures_card_and_pictures(trained: Trained) -> None:
    assert sorted(file.name for file in trained.winner.iterdir()) == [
        "README.md",
        "metrics.json",
        "model.safetensors",
        "pictures",
        "spec.json",
    ]
    assert len(list((trained.winner / "pictures").iterdir())) == 6
    detector, spec = load_export(trained.winner)
    assert not detector.training
    assert [category.name for category in spec.categories] == ["red", "blue"]
    assert spec.config.train.precision == "fp32"


def test_the_export_is_the_best_epochs_checkpoint_and_names_its_trial(trained: Trained) -> None:
    epoch = best_epoch(trained)
    assert read_spec(trained.winner).epoch == epoch
    metrics = json.loads((trained.winner / "metrics.json").read_text())
    assert metrics["of"] == {"trial": 0, "epoch": epoch}
    assert metrics == trained.result.metrics


def test_measured_figures_are_near_those_of_training(trained: Trained) -> None:
    assert trained.result.metrics["val"]["figures"]["map"] == pytest.approx(
        best_of(trained).map, abs=0.02
    )


def best_of(trained: Trained) -> Row:
    """The winner's row."""
    row = trained.result.winner
    assert row is not None
    return row


def best_epoch(trained: Trained) -> int:
    """The epoch that the winner's checkpoint is of."""
    best = best_of(trained).record.best
    assert best is not None
    return best.epoch


def copied(trained: Trained, place: Path) -> Any:
    """A copy of the search in this folder, and its study."""
    shutil.copytree(trained.config.storage, place)
    config = trained.config.model_copy(update={"storage": place})
    return config, open_study(config.folder, config.name)


def test_an_export_of_the_same_checkpoint_is_not_made_again(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    progress = Recorded()
    metrics = export_winner(config, tiny, study, best_of(trained), progress)
    assert (metrics, progress.lines) == (trained.result.metrics, [])


@pytest.mark.slow  # it measures twice, each time in a fresh process
def test_an_export_of_another_checkpoint_is_made_again(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    (config.folder / ".winner").mkdir()  # a killed driver left it
    file = config.folder / "winner" / "metrics.json"
    other = {"trial": 9, "epoch": 1}
    file.write_text(json.dumps(trained.result.metrics | {"of": other, "for": other}))
    progress = Recorded()
    data = replace(tiny, test=replace(tiny.val, name="test"))
    yaml = config.folder / "search.yaml"
    place = config.data.val.parent
    shutil.copytree(place, tmp_path / "data")
    same = json.loads((place / "val.json").read_text())
    same["images"].reverse()
    test = tmp_path / "data" / "test.json"
    test.write_text(json.dumps(same))
    text = yaml.read_text().replace(str(place), str(tmp_path / "data"))
    text = text.replace("test: null", f"test: {test}")
    yaml.write_text(text.replace("allow: null", "allow: [same-picture-in-splits]"))
    metrics = export_winner(config, data, study, best_of(trained), progress)
    assert progress.lines == ["exporting trial 0 and measuring it in a fresh process"]
    assert metrics["val"]["figures"] == trained.result.metrics["val"]["figures"]
    assert metrics["test"]["figures"] == metrics["val"]["figures"]
    assert metrics["test"]["looks"] == 1
    assert "Test was evaluated once." in (config.folder / "winner" / "README.md").read_text()
    assert not (config.folder / ".winner").exists()


def test_a_checkpoint_of_another_epoch_is_exported_with_a_warning(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, _ = copied(trained, tmp_path / "copy")
    file = config.folder / "trials" / "0" / BEST
    checkpoint = load(file)
    epoch = checkpoint["report"]["epoch"] = 3 - checkpoint["report"]["epoch"]
    save(checkpoint, file)
    run, exported = winner._checkpoint(config, best_of(trained))
    assert (run.number, exported) == (0, epoch)
    assert f"is of epoch {epoch}, but the best" in caplog.text


def test_without_the_best_runs_checkpoint_the_next_best_is_exported(
    trained: Trained, tmp_path: Path
) -> None:
    config, _ = copied(trained, tmp_path / "copy")
    shutil.move(config.folder / "trials" / "0", config.folder / "trials" / "1")
    row = best_of(trained)
    confirmed = replace(row, fresh=(replace(row.record, number=1),))
    run, epoch = winner._checkpoint(config, confirmed)
    assert (run.number, epoch) == (1, best_epoch(trained))


def test_a_checkpoint_exported_in_place_of_a_lost_one_is_not_exported_again(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    metrics = trained.result.metrics
    substitute = metrics | {"of": {"trial": 5, "epoch": 1}, "for": metrics["of"]}
    (config.folder / "winner" / "metrics.json").write_text(json.dumps(substitute))
    assert export_winner(config, tiny, study, best_of(trained), Recorded()) == substitute


def test_the_gain_in_an_export_is_brought_up_to_date(
    trained: Trained, tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    card = config.folder / "winner" / CARD
    weights = (config.folder / "winner" / "model.safetensors").read_bytes()
    for text in ("It may be luck.", "That is more than luck."):
        monkeypatch.setattr(winner, "describe_gain", lambda *_, text=text: text)
        progress = Recorded()
        metrics = export_winner(config, tiny, study, best_of(trained), progress)
        assert metrics["gain"] == text and metrics["of"] == trained.result.metrics["of"]
        assert read_metrics(config.folder / "winner") == metrics
        assert text in card.read_text() and progress.lines == []
    assert "may be luck" not in card.read_text()
    assert (config.folder / "winner" / "model.safetensors").read_bytes() == weights


def test_without_any_checkpoint_a_winner_is_refused(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    shutil.rmtree(config.folder / "winner")
    (config.folder / "trials" / "0" / BEST).unlink()
    with pytest.raises(InputError, match=r"has no intact best\.pt"):
        export_winner(config, tiny, study, best_of(trained), Recorded())
