"""The YAML of a search: YAML 1.2, every path absolute."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.space.config import SearchConfig, redacted
from search.space.config_file import DEFAULT, read, read_yaml, write_yaml
from search.space.locations import absolute, tracking_uri, trial_folder
from search.space.validation import resolve
from trainer.config import parse

from ..conftest import SPACE, errors_of

Make = Callable[..., Any]


def written(text: str, name: str = "search.yaml") -> Path:
    file = Path(name)
    file.write_text(text)
    return file


# -- YAML ---------------------------------------------------------------------------------------


def test_yaml_is_of_version_1_2() -> None:
    raw = read_yaml(written("a: 1e-4\nb: no\nc: 012\nd: off\ne: 12:30\nf: 0o14\n"))
    assert raw == {"a": 1e-4, "b": "no", "c": 12, "d": "off", "e": "12:30", "f": 12}


def test_a_repeated_key_is_an_error_with_its_line() -> None:
    (error,) = errors_of(read_yaml, written("a: 1\nb: 2\na: 3\n"))
    assert "duplicate key" in error and '"a"' in error
    assert "line 3" in error


def test_broken_yaml_is_told_with_file_and_line() -> None:
    (error,) = errors_of(read_yaml, written("a: 1\nb: [1,\n"))
    assert error.startswith("search.yaml, line ")


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words\n", "# nothing\n"])
def test_a_file_without_keys_is_refused(text: str) -> None:
    (error,) = errors_of(read_yaml, written(text))
    assert error == "search.yaml: holds no keys; `unfreeze init DATA` writes an example"


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\x00\x00", b"name: caf\xe9", b"name: a\x00b"]
)
def test_a_file_that_is_no_text_is_refused(content: bytes) -> None:
    Path("search.yaml").write_bytes(content)
    (error,) = errors_of(read_yaml, Path("search.yaml"))
    assert error.startswith("search.yaml")


def test_a_missing_file_is_told_with_the_next_step() -> None:
    (error,) = errors_of(read_yaml, Path("no.yaml"))
    assert error == "no.yaml: no such file; `unfreeze init DATA` writes one"


# -- reading, with settings over it ---------------------------------------------------------------


def test_the_embedded_default_is_sound() -> None:
    config = resolve(read(None, []), Path())
    assert (config.name, config.data) == ("digits", "digits")
    assert set(config.space) >= {"train.unfreeze.depth", "train.unfreeze.lr"}


def test_the_default_file_is_the_one_that_is_read() -> None:
    assert read(None, []) == read_yaml(DEFAULT)


def test_the_name_is_the_yamls_else_the_files_stem_and_the_options_wins() -> None:
    assert read(written("model: {}\n", "cells.yaml"), [])["name"] == "cells"
    assert read(written("name: inner\n", "cells.yaml"), [])["name"] == "inner"
    assert read(written("name: inner\n", "cells.yaml"), [], "outer")["name"] == "outer"


def test_settings_are_yaml_over_the_file() -> None:
    raw = read(written("train: {seed: 1}\n"), ["train.seed=2", "train.head.lr=1e-3", "name=no"])
    assert raw == {"name": "no", "train": {"seed": 2, "head": {"lr": 1e-3}}}


def test_a_setting_can_give_a_dimension() -> None:
    raw = read(written("name: x\n"), ["space.train.unfreeze.lr={log: [1e-4, 1e-2]}"])
    assert raw["space"] == {"train.unfreeze.lr": {"log": [1e-4, 1e-2]}}


def test_a_setting_can_give_a_dimension_to_an_empty_space() -> None:
    raw = read(written("name: x\nspace:\n"), ["space.train.unfreeze.lr={log: [1e-4, 1e-2]}"])
    assert raw["space"] == {"train.unfreeze.lr": {"log": [1e-4, 1e-2]}}


@pytest.mark.parametrize("setting", ["train.seed", "=3", "train.seed:3"])
def test_a_setting_without_name_or_value_is_refused(setting: str) -> None:
    (error,) = errors_of(read, None, [setting])
    assert error == f"--set {setting}: write it as dotted.field=value"


def test_a_setting_that_is_broken_yaml_is_refused() -> None:
    (error,) = errors_of(read, None, ["train.seed=[1"])
    assert error.startswith("--set train.seed=[1, line 1")


def test_asha_can_be_off() -> None:
    raw = read(written("name: x\ndata: digits\nsearch: {asha: off}\n"), [])
    assert resolve(raw, Path()).search.asha == "off"


# -- paths ----------------------------------------------------------------------------------------


def test_paths_become_absolute_each_from_its_own_place(tmp_path: Path, tiny_data: Any) -> None:
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
    config = resolve(raw, Path("project"))
    assert config.data != "digits"
    assert config.data.train == beside / "train.json"
    assert config.data.val == beside / "val.json"
    assert config.data.images == beside / "images"
    assert config.model.weights == str(beside / "start.pth")
    assert config.folder == tmp_path / "kept" / "x"


def test_a_link_stays_what_it_is_called(tmp_path: Path, tiny_data: Any) -> None:
    blob = tmp_path / "blobs" / "5f7e"
    blob.parent.mkdir()
    blob.write_bytes(tiny_data.train.read_bytes())
    (tmp_path / "train.json").symlink_to(blob)
    config = resolve({"name": "x", "data": {"train": "train.json"}}, Path())
    assert config.data != "digits"
    assert config.data.train == tmp_path / "train.json"


@pytest.mark.parametrize("choice", [["imagenet", "own.pth"], {"imagenet": {}, "own.pth": {}}])
def test_weights_to_choose_from_become_absolute(
    make_raw: Make, tmp_path: Path, choice: Any
) -> None:
    raw = make_raw({"space": {"model.weights": {"choice": choice}}})
    space = absolute(parse(SearchConfig, raw), tmp_path).space
    assert list(space["model.weights"]["choice"]) == ["imagenet", str(tmp_path / "own.pth")]


def test_a_folder_of_pictures_a_split_becomes_absolute(make_raw: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    config = resolve(make_raw({"data.images": {"train": "a", "val": "b"}}), Path())
    assert config.data.images == {"train": tmp_path / "a", "val": tmp_path / "b"}


def test_a_resolved_config_survives_its_own_yaml(make_search: Make) -> None:
    config = make_search({"space": SPACE, "search.time_budget": "2h", "tracking": "off"})
    file = written(write_yaml(config.model_dump(mode="json")), "kept.yaml")
    assert parse(SearchConfig, read_yaml(file)) == config


def test_a_resolved_config_is_plain_json(make_search: Make) -> None:
    assert json.loads(json.dumps(make_search().model_dump(mode="json")))["name"] == "tiny"


def test_a_trials_folder_is_its_number() -> None:
    assert trial_folder(Path("searches/cells"), 12) == Path("searches/cells/trials/12")


# -- passwords ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:se/cr@et==@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        (
            "postgresql://host/db?user=me&password=secret",
            "postgresql://host/db?user=me&password=***",
        ),
        ("https://secret@host/x", "https://***@host/x"),
        ("https://host:5000/x", "https://host:5000/x"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        (
            "no answer from 'http://me:secret@host/' today",
            "no answer from 'http://me:***@host/' today",
        ),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
    assert redacted(shown) == shown


# -- where MLflow's rows go -----------------------------------------------------------------------


def test_tracking_is_the_yamls_then_the_environments_then_sqlite_here(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tracking_uri(make_search().tracking) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(make_search().tracking) == "http://mlflow:5000"
    assert tracking_uri(make_search({"tracking": "sqlite:///a/b.db"}).tracking) == (
        f"sqlite:///{tmp_path}/a/b.db"
    )
    assert tracking_uri(make_search({"tracking": "off"}).tracking) == "off"


def test_an_absolute_store_stays() -> None:
    assert tracking_uri("sqlite:////kept/mlflow.db") == "sqlite:////kept/mlflow.db"
