"""Unfreeze from Python: the same searches, folders and answers as the command's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

import unfreeze
from search.commands.cli import main
from search.commands.init import ChosenSearch
from search.space.config import SearchConfig
from search.space.config_file import write_yaml
from search.space.validation import checked_config
from search.study.lock import locked
from trainer.config import Data

from .conftest import MadeUp, Trained, errors_of

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def finished(trained: Trained, tmp_path: Path) -> dict[str, Any]:
    """The content of the YAML of a training, whose folder is complete."""
    shutil.copytree(trained.config.storage, tmp_path / "searches")
    return trained.raw | {"storage": str(tmp_path / "searches")}


# -- data -----------------------------------------------------------------------------------------


def test_a_check_is_that_of_the_command(tiny_data: Data, capsys: Captured) -> None:
    checked = unfreeze.check(tiny_data.train)
    assert checked.ok and checked.errors == []
    main(["check", str(tiny_data.train), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert checked.splits == printed["splits"]
    assert checked.classes == [category["name"] for category in printed["categories"]]
    assert [f.code for f in checked.findings] == [f["code"] for f in printed["findings"]]
    main(["check", str(tiny_data.train)])
    assert " ".join(str(checked).split()) == " ".join(capsys.readouterr().out.split())


def test_a_check_reports_what_the_model_cannot_see_as_the_command_does(
    tiny_data: Data, capsys: Captured
) -> None:
    content = json.loads(tiny_data.train.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][2:] = [0.1, 0.1]
    Path("specks.json").write_text(json.dumps(content))
    images = str(tiny_data.train.parent / "images")
    codes = [finding.code for finding in unfreeze.check("specks.json", images=[images]).findings]
    main(["check", "specks.json", "--images", images, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert codes == [finding["code"] for finding in printed["findings"]]
    assert "box-vanishing" in codes


def test_errors_of_the_data_are_findings_unless_they_are_allowed(tiny_data: Data) -> None:
    content = json.loads(tiny_data.train.read_text())
    content["annotations"][0]["bbox"][2] = -1
    Path("bad.json").write_text(json.dumps(content))
    images = [str(tiny_data.train.parent / "images")]
    checked = unfreeze.check("bad.json", images=images, pictures=False)
    assert not checked.ok
    (error,) = checked.errors
    allowed = unfreeze.check("bad.json", images=images, pictures=False, allow=[error.code])
    assert allowed.ok and error.code in [finding.code for finding in allowed.findings]


def test_the_embedded_digits_can_be_checked_and_their_pictures_listed() -> None:
    files = unfreeze.check("digits").files
    assert {name: len(pictures) for name, pictures in files.items()} == {
        name: count["pictures"] for name, count in unfreeze.check("digits").splits.items()
    }
    assert all(file.is_file() for file in files["val"])


def test_no_data_set_is_an_error() -> None:
    assert errors_of(unfreeze.check, "gone") == ["gone: no such file or folder"]


# -- searches -------------------------------------------------------------------------------------


def test_what_is_complete_is_returned_at_once(
    finished: dict[str, Any], trained: Trained, capsys: Captured
) -> None:
    search = unfreeze.train(finished)
    assert (search.name, search.state) == ("once", "done")
    assert search.trials.loc[0, "map"] == pytest.approx(trained.result.rows[0].map)
    assert "Winner: trial #0 baseline" in str(search)
    assert repr(search).startswith("<Search once: done, 1 trials, best AP ")


@pytest.mark.parametrize("form", ["content", "file", "configuration"])
def test_a_search_is_given_by_its_content_its_file_or_a_configuration(
    form: str, finished: dict[str, Any]
) -> None:
    Path("once.yaml").write_text(write_yaml(finished))
    sources: dict[str, Any] = {
        "content": finished,
        "file": "once.yaml",
        "configuration": checked_config(finished, Path()),
    }
    search = unfreeze.train(sources[form], quiet=True)
    assert search.folder == Path("searches/once").resolve()
    assert isinstance(search.config, SearchConfig)


def test_quiet_prints_nothing(finished: dict[str, Any], capsys: Captured) -> None:
    unfreeze.train(finished, quiet=True)
    assert capsys.readouterr().out == ""


def test_a_setting_that_differs_is_refused_as_by_the_command(finished: dict[str, Any]) -> None:
    settings = {"train.unfreeze.lr": 0.002}
    errors = errors_of(lambda: unfreeze.train(finished, settings=settings, quiet=True))
    assert "train.unfreeze.lr" in errors[1] and "0.002" in errors[1]


def test_every_error_is_said_before_anything_starts(make_raw: Make) -> None:
    errors = errors_of(lambda: unfreeze.search(make_raw({"modle": {}}), trials=0))
    assert len(errors) == 2
    assert not Path("searches").exists()


def test_a_data_set_gets_the_configuration_that_init_writes(
    tiny_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[SearchConfig] = []
    monkeypatch.setattr(
        "search.running.driver.run", lambda config, progress: started.append(config)
    )
    folder = tiny_data.train.parent
    with pytest.raises(unfreeze.InputError, match="no search"):  # since none has run
        unfreeze.search(folder, trials=5, settings={"train.seed": 3}, quiet=True)
    main(["init", str(folder), "--out", "written.yaml"])
    with pytest.raises(unfreeze.InputError, match="no search"):
        unfreeze.search("written.yaml", name=folder.name, trials=5, quiet=True)
    of_data, of_file = started
    assert (of_data.name, of_data.search.trials, of_data.train.seed) == (folder.name, 5, 3)
    assert of_data.model_copy(update={"train": of_file.train}) == of_file


def test_what_was_chosen_for_a_data_set_is_said_unless_quiet(
    tiny_data: Data, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    chosen = ChosenSearch("name: tiny\ndata: digits\n", ("of the data",), ("a canvas of 640",), "")
    monkeypatch.setattr("unfreeze.choose_search", lambda *_: chosen)
    monkeypatch.setattr("search.running.driver.run", lambda config, _: None)
    for quiet, said in ((False, "a canvas of 640\n"), (True, "")):
        with pytest.raises(unfreeze.InputError, match="no search"):  # since none has run
            unfreeze.search(tiny_data.train, quiet=quiet)
        assert capsys.readouterr().out == said


def test_digits_are_the_embedded_data_set_unless_a_folder_has_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[SearchConfig] = []
    monkeypatch.setattr("search.running.driver.run", lambda config, _: started.append(config))
    for source in (None, "digits"):
        with pytest.raises(unfreeze.InputError, match="no search"):  # since none has run
            unfreeze.search(source, quiet=True)
    assert started[0] == started[1] and started[0].data == "digits"
    Path("digits").mkdir()
    (error,) = errors_of(unfreeze.search, "digits")
    assert error.startswith("digits: ")


def test_a_yolo_yaml_is_data_and_no_search(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: images\nnames: [a]\n")
    (error,) = errors_of(unfreeze.search, tmp_path / "data.yaml")
    assert "images" in error


# -- what has run ---------------------------------------------------------------------------------


def test_the_trials_are_a_frame_by_number(made_up: MadeUp) -> None:
    search = unfreeze.open_search("made-up", storage=made_up.config.storage)
    assert list(search.trials.index)[-1] == 3  # the one that failed
    assert search.trials["rank"].is_monotonic_increasing


def test_a_search_that_another_process_runs_is_running(made_up: MadeUp, tmp_path: Path) -> None:
    shutil.copytree(made_up.config.folder, tmp_path / "made-up")
    search = unfreeze.open_search("made-up", storage=tmp_path)
    assert search.state == "done"
    with locked(tmp_path / "made-up"):
        assert search.state == "running"
        assert "Winner" not in str(search) and "It is running." in str(search)


def test_a_model_stays_where_it_is_when_the_folder_changes(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.config.storage.parent)
    model = unfreeze.load("once")
    monkeypatch.chdir(tmp_path)
    assert model.metrics["val"] and model.classes == ("red", "blue")


def test_a_split_that_is_none_is_refused(trained: Trained) -> None:
    data = trained.config.folder / "search.yaml"
    assert errors_of(lambda: unfreeze.load(trained.winner).evaluate(data, split="tests")) == [
        "split: tests (legal: train, val, test)"
    ]


def test_the_study_is_optunas(made_up: MadeUp) -> None:
    study = unfreeze.open_search("made-up", storage=made_up.config.storage).study
    assert isinstance(study, optuna.Study)
    assert len(study.trials) == 11
    assert optuna.importance.get_param_importances(study)


def test_the_winner_is_loaded_by_the_searchs_name(trained: Trained) -> None:
    search = unfreeze.open_search("once", storage=trained.config.storage)
    loaded = unfreeze.load("once", storage=trained.config.storage)
    assert search.best.folder == loaded.folder == trained.winner
    assert unfreeze.load(trained.winner).classes == ("red", "blue")


def test_what_does_not_exist_is_an_error() -> None:
    assert errors_of(unfreeze.open_search, "gone") == [
        "no search gone in searches; its searches: none"
    ]
    (error,) = errors_of(unfreeze.load, "gone")
    assert error.startswith("gone: neither an exported folder nor a search")


def test_a_notebook_shows_the_result_as_text(made_up: MadeUp) -> None:
    search = unfreeze.open_search("made-up", storage=made_up.config.storage)
    page = search._repr_html_()
    assert page.startswith("<pre>") and "<script>" not in page
