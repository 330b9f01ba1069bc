"""The YAML file of a configuration: YAML 1.2, settings that override it, and writing it."""

from collections.abc import Callable
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest

from search.space.config import SearchConfig
from search.space.config_file import (
    DEFAULT_FILE,
    parse_settings,
    read_config,
    read_yaml,
    write_yaml,
)
from search.space.validation import checked_config
from trainer.config_errors import parse

from ..conftest import SPACE, errors_of

Make = Callable[..., Any]
LR_DIMENSION = "space.train.unfreeze.lr={log: [1e-4, 1e-2]}"


def write_file(text: str, name: str = "search.yaml") -> Path:
    file = Path(name)
    file.write_text(text)
    return file


def test_yaml_1_2_is_read() -> None:
    raw = read_yaml(write_file("a: 1e-4\nb: no\nc: 012\nd: off\ne: 12:30\nf: 0o14\n"))
    assert raw == {"a": 1e-4, "b": "no", "c": 12, "d": "off", "e": "12:30", "f": 12}


def test_a_repeated_key_is_an_error_that_names_its_line() -> None:
    (error,) = errors_of(read_yaml, write_file("a: 1\nb: 2\na: 3\n"))
    assert "duplicate key" in error and '"a"' in error
    assert "line 3" in error


def test_an_error_in_broken_yaml_names_file_and_line() -> None:
    (error,) = errors_of(read_yaml, write_file("a: 1\nb: [1,\n"))
    assert error.startswith("search.yaml, line ")


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words\n", "# nothing\n"])
def test_a_file_without_keys_is_refused(text: str) -> None:
    (error,) = errors_of(read_yaml, write_file(text))
    assert error == "search.yaml: has no keys; `unfreeze init DATA` writes an example"


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\x00\x00", b"name: caf\xe9", b"name: a\x00b"]
)
def test_a_binary_file_is_refused(content: bytes) -> None:
    Path("search.yaml").write_bytes(content)
    (error,) = errors_of(read_yaml, Path("search.yaml"))
    assert error.startswith("search.yaml")


def test_the_error_of_a_missing_file_says_what_to_do() -> None:
    (error,) = errors_of(read_yaml, Path("no.yaml"))
    assert error == "no.yaml: no such file; `unfreeze init DATA` writes one"


def test_a_file_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path, **_: Any) -> str:  # tests may run as root, which may read everything
        raise PermissionError(EACCES, "Permission denied", str(file))

    file = write_file("a: 1")
    monkeypatch.setattr(Path, "read_text", refuse)
    assert errors_of(read_yaml, file) == ["search.yaml: cannot be read (Permission denied)"]
    monkeypatch.setattr(Path, "is_file", refuse)  # its folder is closed to this account
    assert errors_of(read_yaml, file) == ["search.yaml: cannot be read (Permission denied)"]


def test_the_embedded_default_is_valid() -> None:
    config = checked_config(read_config(None, {}), Path())
    assert (config.name, config.data) == ("digits", "digits")
    assert set(config.space) >= {"train.unfreeze.depth", "train.unfreeze.lr"}


def test_without_a_file_the_default_is_read() -> None:
    assert read_config(None, {}) == read_yaml(DEFAULT_FILE)


def test_the_name_is_the_option_else_the_yamls_else_the_files_stem() -> None:
    assert read_config(write_file("model: {}\n", "cells.yaml"), {})["name"] == "cells"
    assert read_config(write_file("name: inner\n", "cells.yaml"), {})["name"] == "inner"
    assert read_config(write_file("name: inner\n", "cells.yaml"), {}, "outer")["name"] == "outer"


def test_settings_are_yaml_and_override_the_file() -> None:
    raw = read_config(
        write_file("train: {seed: 1}\n"),
        parse_settings(["train.seed=2", "train.head.lr=1e-3", "name=no"]),
    )
    assert raw == {"name": "no", "train": {"seed": 2, "head": {"lr": 1e-3}}}


def test_a_setting_can_give_a_dimension() -> None:
    raw = read_config(write_file("name: x\n"), parse_settings([LR_DIMENSION]))
    assert raw["space"] == {"train.unfreeze.lr": {"log": [1e-4, 1e-2]}}


def test_a_setting_can_give_a_dimension_to_an_empty_space() -> None:
    raw = read_config(write_file("name: x\nspace:\n"), parse_settings([LR_DIMENSION]))
    assert raw["space"] == {"train.unfreeze.lr": {"log": [1e-4, 1e-2]}}


@pytest.mark.parametrize("setting", ["train.seed", "=3", "train.seed:3"])
def test_a_setting_without_name_or_value_is_refused(setting: str) -> None:
    (error,) = errors_of(parse_settings, [setting])
    assert error == f"--set {setting}: write it as dotted.field=value"


def test_a_setting_with_broken_yaml_is_refused() -> None:
    (error,) = errors_of(parse_settings, ["train.seed=[1"])
    assert error.startswith("--set train.seed=[1, line 1")


def test_a_resolved_config_can_be_read_from_its_yaml(make_search: Make) -> None:
    config = make_search({"space": SPACE, "search.time_budget": "2h", "tracking": "off"})
    file = write_file(write_yaml(config.model_dump(mode="json")), "kept.yaml")
    assert parse(SearchConfig, read_yaml(file)) == config


def test_asha_can_be_off() -> None:
    raw = read_config(write_file("name: x\ndata: digits\nsearch: {asha: off}\n"), {})
    assert checked_config(raw, Path()).search.asha == "off"
