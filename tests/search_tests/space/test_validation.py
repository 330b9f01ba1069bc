"""All errors of a search's configuration at once, each with its path, value and legal range."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from search.space.validation import checked_config

from ..conftest import SPACE, errors_of

Make = Callable[..., Any]


def test_all_errors_are_raised_at_once(make_raw: Make) -> None:
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
    errors = "\n".join(errors_of(checked_config, raw, Path()))
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


def test_errors_of_dimensions_and_of_fields_are_raised_together(make_raw: Make) -> None:
    raw = make_raw(
        {"space": {"train.unfreeze.lr": {"log": [0, 1]}}, "search.asha.grace_period": 20}
    )
    errors = errors_of(checked_config, raw, Path())
    assert errors == [
        "space.train.unfreeze.lr: log: low is 0 (legal: above 0)",
        "search.asha.grace_period: 20 is more than train.unfreeze.epochs (9)",
    ]


@pytest.mark.parametrize(
    ("path", "value", "start"),
    [
        ("search.asha.grace_period", 0, "search.asha.grace_period: 0: "),
        (
            "search.asha.reduction_faktor",
            3,
            "search.asha.reduction_faktor: unknown key; did you",
        ),
        ("search.asha", "on", "search.asha: 'on'"),
        ("resources.cpus_per_trial", 0, "resources.cpus_per_trial: 0: "),
        ("resources", "all", "resources: 'all'"),
        ("data.trian", "x", "data.trian: unknown key; did you mean train?"),
        ("data", "didgits", "data: 'didgits'"),
    ],
)
def test_an_error_in_a_part_that_may_also_be_a_word_has_a_plain_path(
    make_raw: Make, path: str, value: Any, start: str
) -> None:
    (error,) = errors_of(checked_config, make_raw({path: value}), Path())
    assert error.startswith(start)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"name": "a/b"}, "name: 'a/b': names a folder: up to 100 letters"),
        ({"search.time_budget": "soon"}, "search.time_budget: 'soon': is not a duration"),
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
    assert part in "\n".join(errors_of(checked_config, make_raw(changes), Path()))


@pytest.mark.parametrize("uri", ["foo://bar", "redis+x://host", "mlruns", "file:///mlruns"])
def test_a_tracking_uri_without_a_store_in_mlflow_is_an_error(make_raw: Make, uri: str) -> None:
    (error,) = errors_of(checked_config, make_raw({"tracking": uri}), Path())
    assert error.startswith(f"tracking: {uri} (legal: off, or one of ")
    for legal in ("off", "databricks", "http://here:5000", "postgresql+psycopg2://here/mlflow"):
        checked_config(make_raw({"tracking": legal}), Path())


def test_a_folder_as_tracking_uri_needs_mlflows_environment_variable(
    make_raw: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    checked_config(make_raw({"tracking": "mlruns"}), Path())


def test_the_error_of_a_depth_beyond_the_backbone_names_its_stages(make_raw: Make) -> None:
    raw = make_raw({"train.unfreeze.depth": 5, "model.backbone": "convnext_tiny"})
    assert errors_of(checked_config, raw, Path()) == [
        "train.unfreeze.depth: 5 (legal: 0 to 4, or all)"
    ]


def test_a_grace_period_of_more_than_the_epochs_is_an_error(make_raw: Make) -> None:
    (error,) = errors_of(checked_config, make_raw({"search.asha.grace_period": 10}), Path())
    assert error == "search.asha.grace_period: 10 is more than train.unfreeze.epochs (9)"


@pytest.mark.parametrize(
    "changes",
    [
        {"train.unfreeze.schedule": "gradual"},
        {"train.unfreeze.schedule": "at_once", "space": SPACE},
    ],
)
def test_a_grace_period_below_open_epochs_is_an_error(
    make_raw: Make, changes: dict[str, Any]
) -> None:
    raw = make_raw({"train.unfreeze.open_epochs": 3, "search.asha.grace_period": 2, **changes})
    (error,) = errors_of(checked_config, raw, Path())
    assert error == (
        "search.asha.grace_period: 2 is less than train.unfreeze.open_epochs (3): "
        "trials would be judged half open"
    )


def test_a_grace_period_below_searched_open_epochs_is_an_error(make_raw: Make) -> None:
    space = {"train.unfreeze.open_epochs": {"int": [1, 4]}}
    raw = make_raw({"search.asha.grace_period": 3, "space": space})
    errors = errors_of(checked_config, raw, Path())
    assert any("half open" in error for error in errors)


def test_a_grace_period_below_open_epochs_in_a_branch_is_an_error(make_raw: Make) -> None:
    inner = {"train.unfreeze.open_epochs": {"int": [1, 6]}}
    space = {"train.unfreeze.schedule": {"choice": {"gradual": inner, "at_once": {}}}}
    raw = make_raw({"search.asha.grace_period": 3, "space": space})
    errors = errors_of(checked_config, raw, Path())
    assert any("open_epochs (6): trials would be judged half open" in error for error in errors)


def test_a_short_grace_period_is_valid_with_one_stage(make_raw: Make) -> None:
    raw = make_raw({"train.unfreeze.depth": 1, "search.asha": {"grace_period": 1}})
    del raw["train"]["unfreeze"]["open_epochs"]
    assert checked_config(raw, Path()).search.asha != "off"


def test_a_short_grace_period_is_valid_if_stages_open_at_once(make_raw: Make) -> None:
    raw = make_raw({"train.unfreeze.schedule": "at_once", "search.asha": {"grace_period": 1}})
    del raw["train"]["unfreeze"]["open_epochs"]
    assert checked_config(raw, Path()).search.asha != "off"


def test_a_trial_that_needs_more_than_this_machine_is_an_error(make_raw: Make) -> None:
    large = {"resources": {"cpus_per_trial": 4000, "gpus_per_trial": 0}}
    (error,) = errors_of(checked_config, make_raw(large), Path())
    assert error.startswith("resources.cpus_per_trial: 4000 (legal: at most ")
    checked_config(make_raw(large | {"cluster": "auto"}), Path())  # whose nodes may be larger


def test_nothing_is_written_on_errors(make_raw: Make) -> None:
    before = sorted(Path().rglob("*"))
    errors_of(checked_config, make_raw({"search.trials": 0}), Path())
    errors_of(checked_config, make_raw({"train.unfreeze.depth": 9}), Path())
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"detector": "fcos_resnet50_fpn", "weights": "coco", "backbone": "vgg16"}},
            "model.backbone: has no effect, since model.detector is fcos_resnet50_fpn, which "
            "brings a backbone; leave it out",
        ),
        (
            {"model.backbone": "vgg16", "train.unfreeze.drop_path": 0.1},
            "train.unfreeze.drop_path: has no effect, since timm's vgg16 has no stochastic depth; "
            "leave it out",
        ),
    ],
)
def test_a_field_without_effect_for_the_model_is_refused(
    make_raw: Make, changes: dict[str, Any], message: str
) -> None:
    assert errors_of(checked_config, make_raw(changes), Path()) == [message]


def test_without_its_space_a_file_is_checked_and_read_as_one_configuration(make_raw: Make) -> None:
    space = {"model.backbone": {"choice": ["vgg16", "no-such-model"]}}
    raw = make_raw({"space": space, "search.first": [{"model.backbone": "vgg16"}]})
    assert len(errors_of(checked_config, raw, Path())) > 0
    config = checked_config(raw, Path(), without_space=True)
    assert (config.space, config.search.first) == ({}, [])
    raw["train"]["unfreeze"]["depth"] = 9
    (error,) = errors_of(partial(checked_config, without_space=True), raw, Path())
    assert error.startswith("train.unfreeze.depth: 9")
