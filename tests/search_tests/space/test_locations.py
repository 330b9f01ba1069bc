"""Folders and URIs of a search, and relative paths made absolute."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.space.config import SearchConfig
from search.space.locations import tracking_uri, trial_folder, with_absolute_paths
from search.space.validation import checked_config, search_config_errors
from trainer.config import Data
from trainer.config_errors import parse

Make = Callable[..., Any]


def test_data_and_weights_are_relative_to_the_yaml_and_storage_to_the_working_folder(
    tmp_path: Path, tiny_data: Any
) -> None:
    beside = tmp_path / "project"
    (beside / "images").mkdir(parents=True)
    for name in ("train", "val"):
        (beside / f"{name}.json").write_bytes(getattr(tiny_data, name).read_bytes())
    (beside / "start.pth").write_bytes(b"")
    raw = {
        "name": "x",
        "data": {"train": "train.json", "val": "val.json", "images": "images"},
        "model": {"weights": "start.pth"},
        "storage": "kept",
    }
    config = checked_config(raw, Path("project"))
    assert config.data != "digits"
    assert config.data.train == beside / "train.json"
    assert config.data.val == beside / "val.json"
    assert config.data.images == beside / "images"
    assert config.model.weights == str(beside / "start.pth")
    assert config.folder == tmp_path / "kept" / "x"


def test_links_are_not_resolved(tmp_path: Path, tiny_data: Any) -> None:
    blob = tmp_path / "blobs" / "5f7e"
    blob.parent.mkdir()
    blob.write_bytes(tiny_data.train.read_bytes())
    (tmp_path / "train.json").symlink_to(blob)
    config = checked_config({"name": "x", "data": {"train": "train.json"}}, Path())
    assert config.data != "digits"
    assert config.data.train == tmp_path / "train.json"


@pytest.mark.parametrize("choice", [["imagenet", "own.pth"], {"imagenet": {}, "own.pth": {}}])
def test_files_among_the_choices_of_weights_become_absolute(
    make_raw: Make, tmp_path: Path, choice: Any
) -> None:
    raw = make_raw({"space": {"model.weights": {"choice": choice}}})
    space = with_absolute_paths(parse(SearchConfig, raw), tmp_path).space
    assert list(space["model.weights"]["choice"]) == ["imagenet", str(tmp_path / "own.pth")]


def test_an_image_folder_for_each_split_becomes_absolute(make_raw: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    config = checked_config(make_raw({"data.images": {"train": "a", "val": "b"}}), Path())
    assert isinstance(config.data, Data)
    assert config.data.images == {"train": tmp_path / "a", "val": tmp_path / "b"}


def test_the_folder_of_a_trial_is_its_number() -> None:
    assert trial_folder(Path("searches/cells"), 12) == Path("searches/cells/trials/12")


def test_tracking_comes_from_the_yaml_else_the_environment_else_is_sqlite_in_the_working_folder(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tracking_uri(make_search().tracking) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(make_search().tracking) == "http://mlflow:5000"
    assert tracking_uri(make_search({"tracking": "sqlite:///a/b.db"}).tracking) == (
        f"sqlite:///{tmp_path}/a/b.db"
    )
    assert tracking_uri(make_search({"tracking": "off"}).tracking) == "off"


def test_the_uri_of_an_absolute_sqlite_file_stays() -> None:
    assert tracking_uri("sqlite:////kept/mlflow.db") == "sqlite:////kept/mlflow.db"


def test_a_wrong_key_beside_the_choices_stays_to_be_refused(make_raw: Make) -> None:
    wrong = {"train.unfreeze.lr": {"choice": [1e-3, 1e-2], "log": [1e-4, 1e-2]}}
    config = with_absolute_paths(parse(SearchConfig, make_raw({"space": wrong})), Path())
    assert config.space == wrong
    assert any("train.unfreeze.lr" in line for line in search_config_errors(config))
