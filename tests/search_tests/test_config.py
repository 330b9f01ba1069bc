"""The YAML of a search: YAML 1.2, checked whole, every path absolute."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.config import (
    DEFAULT,
    SearchConfig,
    read,
    read_yaml,
    resolve,
    tracking_uri,
    trial_folder,
    write_yaml,
)
from trainer.config import BadInput, parse

from .conftest import SPACE

Make = Callable[..., Any]


def errors_of(call: Callable[..., Any], *arguments: Any) -> list[str]:
    with pytest.raises(BadInput) as raised:
        call(*arguments)
    return raised.value.errors


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


# -- errors ---------------------------------------------------------------------------------------


def test_every_error_is_told_at_once(make_raw: Make) -> None:
    raw = make_raw(
        {
            "train.unfreeze.lr": 100,
            "train.unfreeze.dept": 3,
            "train.unfreeze.depth": 9,
            "search.trials": 0,
            "search.time_budget": "2 weeks",
            "data.val": "nowhere.json",
            "space": {"train.unfreeze.weigth_decay": {"log": [1e-6, 1e-2]}},
        }
    )
    errors = "\n".join(errors_of(resolve, raw, Path()))
    for part in (
        "train.unfreeze.lr: 100: input should be less than or equal to 10 (legal: over 0, at most",
        "train.unfreeze.dept: unknown key; did you mean depth?",
        "train.unfreeze.depth: 9 (legal: 0 to 5, or all)",
        "search.trials: 0: input should be greater than or equal to 1 (legal: at least 1",
        "search.time_budget: '2 weeks': ",
        "data.val: no file /",
        "space.train.unfreeze.weigth_decay: unknown field; did you mean train.unfreeze.weight_deca",
    ):
        assert part in errors


def test_errors_of_dimensions_and_of_fields_are_told_together(make_raw: Make) -> None:
    raw = make_raw(
        {"space": {"train.unfreeze.lr": {"log": [0, 1]}}, "search.asha.grace_period": 20}
    )
    errors = errors_of(resolve, raw, Path())
    assert errors == [
        "space.train.unfreeze.lr: log: low is 0 (legal: above 0)",
        "search.asha.grace_period: 20 is more than train.unfreeze.epochs (9)",
    ]


@pytest.mark.parametrize(
    ("path", "value", "start"),
    [
        ("search.asha.grace_period", 0, "search.asha.grace_period: 0: "),
        ("search.asha.reduction_faktor", 3, "search.asha.reduction_faktor: unknown key; did you"),
        ("search.asha", "on", "search.asha: 'on'"),
        ("resources.cpus_per_trial", 0, "resources.cpus_per_trial: 0: "),
        ("resources", "all", "resources: 'all'"),
        ("data.trian", "x", "data.trian: unknown key; did you mean train?"),
        ("data", "didgits", "data: 'didgits'"),
    ],
)
def test_a_part_that_may_also_be_a_word_keeps_its_plain_path(
    make_raw: Make, path: str, value: Any, start: str
) -> None:
    (error,) = errors_of(resolve, make_raw({path: value}), Path())
    assert error.startswith(start)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"name": "a/b"}, "name: 'a/b': names a folder: up to 100 letters"),
        ({"search.time_budget": "soon"}, "search.time_budget: 'soon': is no duration"),
        ({"name": ""}, "name: ''"),
        ({"search.seed": True}, "search.seed: True: "),
        ({"search.trials": 2.5}, "search.trials: 2.5"),
        ({"resources": {"gpus_per_trial": 1.5}}, "gpus_per_trial: 1.5"),
        ({"resources": {"gpus_per_trial": 2}}, "a trial trains on one GPU for now"),
        ({"resources": {"accelerator_type": "L4"}}, "no effect while gpus_per_trial is 0"),
        ({"resources": {"custom_per_trial": {"a": 0}}}, "resources.custom_per_trial"),
        ({"storage": 3}, "storage: 3"),
        ({"model.backbone": "resnet5"}, "timm has no 'resnet5'; did you mean resnet50?"),
        ({"model.weights": "gone.pth"}, "model.weights: no file or folder /"),
        ({"data.images": "gone"}, "data.images: no folder /"),
        ({"train.momentum": 0.5}, "train.momentum: has no effect, since train.optimizer is adamw"),
    ],
)
def test_an_error_names_the_field_and_its_value(
    make_raw: Make, changes: dict[str, Any], part: str
) -> None:
    assert part in "\n".join(errors_of(resolve, make_raw(changes), Path()))


def test_depth_beyond_the_backbone_is_an_error_with_its_stages(make_raw: Make) -> None:
    raw = make_raw({"train.unfreeze.depth": 5, "model.backbone": "convnext_tiny"})
    assert errors_of(resolve, raw, Path()) == ["train.unfreeze.depth: 5 (legal: 0 to 4, or all)"]


def test_a_grace_period_beyond_the_epochs_is_an_error(make_raw: Make) -> None:
    (error,) = errors_of(resolve, make_raw({"search.asha.grace_period": 10}), Path())
    assert error == "search.asha.grace_period: 10 is more than train.unfreeze.epochs (9)"


@pytest.mark.parametrize(
    "changes",
    [
        {"train.unfreeze.schedule": "gradual"},
        {"train.unfreeze.schedule": "at_once", "space": SPACE},
    ],
)
def test_no_trial_may_be_judged_half_open(make_raw: Make, changes: dict[str, Any]) -> None:
    raw = make_raw({"train.unfreeze.open_epochs": 3, "search.asha.grace_period": 2, **changes})
    (error,) = errors_of(resolve, raw, Path())
    assert error == (
        "search.asha.grace_period: 2 is less than train.unfreeze.open_epochs (3): "
        "trials would be judged half open"
    )


def test_no_trial_may_be_judged_half_open_where_open_epochs_is_searched(make_raw: Make) -> None:
    space = {"train.unfreeze.open_epochs": {"int": [1, 4]}}
    raw = make_raw({"search.asha.grace_period": 3, "space": space})
    errors = errors_of(resolve, raw, Path())
    assert any("half open" in error for error in errors)


def test_a_short_grace_period_is_sound_where_nothing_opens_slowly(make_raw: Make) -> None:
    raw = make_raw({"train.unfreeze.schedule": "at_once", "search.asha": {"grace_period": 1}})
    del raw["train"]["unfreeze"]["open_epochs"]
    assert resolve(raw, Path()).search.asha != "off"


def test_a_trial_larger_than_this_machine_is_an_error(make_raw: Make) -> None:
    large = {"resources": {"cpus_per_trial": 4000, "gpus_per_trial": 0}}
    (error,) = errors_of(resolve, make_raw(large), Path())
    assert error.startswith("resources.cpus_per_trial: 4000 (legal: at most ")
    resolve(make_raw(large | {"cluster": "auto"}), Path())  # whose nodes may be larger


def test_asha_can_be_off() -> None:
    raw = read(written("name: x\ndata: digits\nsearch: {asha: off}\n"), [])
    assert resolve(raw, Path()).search.asha == "off"


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [("90s", 90), ("1.5m", 90), ("2h", 7200), (" 1 d ", 86400), (45, 45), (None, None)],
)
def test_a_time_budget_is_a_duration(make_raw: Make, budget: Any, seconds: Any) -> None:
    config = resolve(make_raw({"search.time_budget": budget}), Path())
    assert config.search.time_budget == seconds


@pytest.mark.parametrize("budget", ["2", "h", "-1h", "1h30m", "1w", 0, "0s", -5])
def test_what_is_no_duration_is_refused(make_raw: Make, budget: Any) -> None:
    (error,) = errors_of(resolve, make_raw({"search.time_budget": budget}), Path())
    assert error.startswith("search.time_budget: ")


def test_nothing_is_written_on_errors(make_raw: Make) -> None:
    before = sorted(Path().rglob("*"))
    errors_of(resolve, make_raw({"search.trials": 0}), Path())
    errors_of(resolve, make_raw({"train.unfreeze.depth": 9}), Path())
    assert sorted(Path().rglob("*")) == before


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
