"""The winner's export, and its figures, measured from it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.exports import winner
from search.exports.winner import export_winner
from search.reporting.progress import Quiet
from search.study.study import open_study
from trainer.config import BadInput
from trainer.data.dataset import Splits
from trainer.export.bundle import load_export, read_metrics, read_spec
from trainer.export.card import CARD
from trainer.model.checkpoint import BEST, load, save

from ..conftest import Trained

Make = Callable[..., Any]


class Told(Quiet):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_it_holds_all_that_a_user_takes_away(trained: Trained) -> None:
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


def test_it_is_the_best_epochs_checkpoint_and_says_of_which_trial(trained: Trained) -> None:
    best = trained.result.winner.record.best
    assert read_spec(trained.winner).epoch == best.epoch
    metrics = json.loads((trained.winner / "metrics.json").read_text())
    assert metrics["of"] == {"trial": 0, "epoch": best.epoch}
    assert metrics == trained.result.metrics


def test_measured_figures_stand_near_those_of_training(trained: Trained) -> None:
    assert trained.result.metrics["val"]["figures"]["map"] == pytest.approx(
        trained.result.winner.map, abs=0.02
    )


def copied(trained: Trained, place: Path) -> Any:
    """The search in a folder of the test's own, and its study."""
    shutil.copytree(trained.config.storage, place)
    config = trained.config.model_copy(update={"storage": place})
    return config, open_study(config.folder, config.name)


def test_it_is_not_made_again_while_it_is_the_same(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    told = Told()
    metrics = export_winner(config, tiny, study, trained.result.winner, told)
    assert (metrics, told.lines) == (trained.result.metrics, [])


@pytest.mark.slow  # it measures twice, each time in a fresh process
def test_it_is_made_again_where_it_is_missing_or_of_another(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    (config.folder / ".winner").mkdir()  # a driver was killed while it made one
    file = config.folder / "winner" / "metrics.json"
    other = {"trial": 9, "epoch": 1}
    file.write_text(json.dumps(trained.result.metrics | {"of": other, "for": other}))
    told = Told()
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
    metrics = export_winner(config, data, study, trained.result.winner, told)
    assert told.lines == ["exporting trial 0 and measuring it in a fresh process"]
    assert metrics["val"]["figures"] == trained.result.metrics["val"]["figures"]
    assert metrics["test"]["figures"] == metrics["val"]["figures"]
    assert metrics["test"]["looks"] == 1
    assert "Test was looked at once." in (config.folder / "winner" / "README.md").read_text()
    assert not (config.folder / ".winner").exists()


def test_a_checkpoint_of_another_epoch_is_told_and_taken(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, _ = copied(trained, tmp_path / "copy")
    file = config.folder / "trials" / "0" / BEST
    checkpoint = load(file)
    epoch = checkpoint["report"]["epoch"] = 3 - checkpoint["report"]["epoch"]
    save(checkpoint, file)
    run, found = winner._source(config, trained.result.winner)
    assert (run.number, found) == (0, epoch)
    assert f"is of epoch {epoch}, while the best" in caplog.text


def test_where_the_best_runs_checkpoint_is_gone_the_next_ones_is_taken(
    trained: Trained, tmp_path: Path
) -> None:
    config, _ = copied(trained, tmp_path / "copy")
    shutil.move(config.folder / "trials" / "0", config.folder / "trials" / "1")
    row = trained.result.winner
    confirmed = replace(row, fresh=(replace(row.record, number=1),))
    run, epoch = winner._source(config, confirmed)
    assert (run.number, epoch) == (1, row.record.best.epoch)


def test_what_stands_in_for_a_winner_is_not_made_again(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    metrics = trained.result.metrics
    stands_in = metrics | {"of": {"trial": 5, "epoch": 1}, "for": metrics["of"]}
    (config.folder / "winner" / "metrics.json").write_text(json.dumps(stands_in))
    assert export_winner(config, tiny, study, trained.result.winner, Told()) == stands_in


def test_what_an_export_says_of_the_gain_is_kept_up_to_date(
    trained: Trained, tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    card = config.folder / "winner" / CARD
    weights = (config.folder / "winner" / "model.safetensors").read_bytes()
    for said in ("It may be luck.", "That is more than luck."):  # with more seeds, say
        monkeypatch.setattr(winner, "describe_gain", lambda *_, said=said: said)
        told = Told()
        metrics = export_winner(config, tiny, study, trained.result.winner, told)
        assert metrics["gain"] == said and metrics["of"] == trained.result.metrics["of"]
        assert read_metrics(config.folder / "winner") == metrics
        assert said in card.read_text() and told.lines == []
    assert "may be luck" not in card.read_text()
    assert (config.folder / "winner" / "model.safetensors").read_bytes() == weights


def test_without_any_checkpoint_a_winner_is_bad_input(
    trained: Trained, tiny: Splits, tmp_path: Path
) -> None:
    config, study = copied(trained, tmp_path / "copy")
    shutil.rmtree(config.folder / "winner")
    (config.folder / "trials" / "0" / BEST).unlink()
    with pytest.raises(BadInput, match=r"has no whole best\.pt"):
        export_winner(config, tiny, study, trained.result.winner, Told())
