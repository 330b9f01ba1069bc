"""A search's configuration is checked whole: every error, with its path, value and legal range."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.space import validation as errors_module
from search.space.sampling import suggest
from search.space.space import apply, read_space
from search.space.validation import resolve
from trainer.config import BadInput

from ..conftest import SPACE, errors_of

Make = Callable[..., Any]

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


@pytest.mark.parametrize("uri", ["foo://bar", "redis+x://host", "mlruns", "file:///mlruns"])
def test_tracking_that_mlflow_has_no_store_for_is_an_error(make_raw: Make, uri: str) -> None:
    (error,) = errors_of(resolve, make_raw({"tracking": uri}), Path())
    assert error.startswith(f"tracking: {uri} (legal: off, or one of ")
    for legal in ("off", "databricks", "http://here:5000", "postgresql+psycopg2://here/mlflow"):
        resolve(make_raw({"tracking": legal}), Path())


def test_a_folder_is_for_who_asks_mlflow_for_it(
    make_raw: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    resolve(make_raw({"tracking": "mlruns"}), Path())


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


def test_no_trial_may_be_judged_half_open_in_a_branch(make_raw: Make) -> None:
    inner = {"train.unfreeze.open_epochs": {"int": [1, 6]}}
    space = {"train.unfreeze.schedule": {"choice": {"gradual": inner, "at_once": {}}}}
    raw = make_raw({"search.asha.grace_period": 3, "space": space})
    errors = errors_of(resolve, raw, Path())
    assert any("open_epochs (6): trials would be judged half open" in error for error in errors)


def test_one_stage_is_never_half_open(make_raw: Make) -> None:
    raw = make_raw({"train.unfreeze.depth": 1, "search.asha": {"grace_period": 1}})
    del raw["train"]["unfreeze"]["open_epochs"]
    assert resolve(raw, Path()).search.asha != "off"


def test_a_short_grace_period_is_sound_where_nothing_opens_slowly(make_raw: Make) -> None:
    raw = make_raw({"train.unfreeze.schedule": "at_once", "search.asha": {"grace_period": 1}})
    del raw["train"]["unfreeze"]["open_epochs"]
    assert resolve(raw, Path()).search.asha != "off"


def test_a_trial_larger_than_this_machine_is_an_error(make_raw: Make) -> None:
    large = {"resources": {"cpus_per_trial": 4000, "gpus_per_trial": 0}}
    (error,) = errors_of(resolve, make_raw(large), Path())
    assert error.startswith("resources.cpus_per_trial: 4000 (legal: at most ")
    resolve(make_raw(large | {"cluster": "auto"}), Path())  # whose nodes may be larger


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


# -- checked against the configuration as written -------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("train.unfreeze.lr", {"log": [1e-4, 100]}),
        ("train.unfreeze.depth", {"int": [-1, 3]}),
        ("train.unfreeze.depth", {"int": [0, 6]}),
        ("train.unfreeze.schedule", {"choice": ["gradual", "slowly"]}),
        ("train.unfreeze.batch_size", {"choice": [0, 4]}),
        ("train.unfreeze.batch_size", {"choice": [4, [8]]}),
        ("train.unfreeze.lr", {"log": [1e-4, "all"]}),
    ],
)
def test_bounds_that_the_field_refuses_are_an_error(make_raw: Make, name: str, spec: Any) -> None:
    errors = errors_of(resolve, make_raw({"space": {name: spec}}), Path())
    assert all(error.startswith(f"space.{name}") or f"space.{name}" in error for error in errors)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("train.unfreeze.batch_size", {"log": [2, 16]}),
        ("train.unfreeze.depth", {"uniform": [0, "all"]}),
        ("model.image_size", {"int": [64, 128]}),
    ],
)
def test_a_dimension_that_is_accepted_gives_only_values_that_its_field_takes(
    make_raw: Make, name: str, spec: Any
) -> None:
    try:
        config = resolve(make_raw({"space": {name: spec}}), Path())
    except BadInput as error:
        assert error.errors[0].startswith(f"space.{name}")
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        apply(config, suggest(read_space(config.space), config, study.ask()))


def test_a_backbone_among_the_choices_must_be_one(make_raw: Make) -> None:
    space = {"model.backbone": {"choice": ["tf_efficientnet_lite0", "resnet5000"]}}
    (error,) = errors_of(resolve, make_raw({"space": space}), Path())
    assert "resnet5000" in error


def test_depths_must_fit_every_backbone_among_the_choices(make_raw: Make) -> None:
    space = {
        "model.backbone": {"choice": ["tf_efficientnet_lite0", "convnext_tiny"]},
        "train.unfreeze.depth": {"int": [0, 5]},
    }
    (error,) = errors_of(resolve, make_raw({"space": space}), Path())
    assert "train.unfreeze.depth" in error


def test_trial_0_must_lie_in_its_own_dimensions(make_raw: Make) -> None:
    (error,) = errors_of(
        resolve, make_raw({"space": {"train.unfreeze.lr": {"log": [2e-3, 1e-2]}}}), Path()
    )
    assert error == (
        "train.unfreeze.lr: 0.001, its value in trial 0, lies outside its own dimension "
        "(log 0.002 to 0.01); change either"
    )


@pytest.mark.parametrize(
    ("first", "part"),
    [
        ({"train.unfreeze.lr": 0.5}, "train.unfreeze.lr: 0.5, its value in search.first[0], lies"),
        ({"train.unfreeze.lr": 50}, "search.first[0].train.unfreeze.lr: 50: "),
        ({"train.unfreeze.lrr": 1e-3}, "search.first[0].train.unfreeze.lrr: "),
        ({"train.unfreeze.schedule": "both"}, "search.first[0].train.unfreeze.schedule: 'both'"),
    ],
)
def test_a_first_point_must_lie_in_the_space(
    make_raw: Make, first: dict[str, Any], part: str
) -> None:
    raw = make_raw({"space": SPACE, "search.first": [first]})
    assert part in "\n".join(errors_of(resolve, raw, Path()))


def test_a_first_points_depth_must_be_one_of_the_backbones(make_raw: Make) -> None:
    raw = make_raw({"space": SPACE, "search.first": [{"train.unfreeze.depth": 9}]})
    (error,) = errors_of(resolve, raw, Path())
    assert "train.unfreeze.depth: 9" in error


def test_a_first_point_sets_only_what_is_searched(make_raw: Make) -> None:
    raw = make_raw({"space": SPACE, "search.first": [{"train.head.lr": 0.01}]})
    (error,) = errors_of(resolve, raw, Path())
    assert "train.head.lr" in error


def test_a_first_point_outside_its_optimizers_range_is_told(make_raw: Make) -> None:
    space = {
        "train.unfreeze.lr": {"log": "auto"},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    first = [{"train.optimizer": "sgd", "train.unfreeze.lr": 2e-4}]
    (error,) = errors_of(resolve, make_raw({"space": space, "search.first": first}), Path())
    assert "log 0.001 to 0.03" in error


def test_a_combination_that_cannot_be_is_told_before_anything_starts(make_raw: Make) -> None:
    space = {"model.detector": {"choice": ["retinanet", "ssdlite320_mobilenet_v3_large"]}}
    (error,) = errors_of(resolve, make_raw({"space": space, "model.weights": "imagenet"}), Path())
    assert error.startswith("space.model.weights: imagenet (legal for ssdlite320_mobilenet_v3")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"train.unfreeze.open_epochs": {"int": [1, 9]}},
            "space.train.unfreeze.open_epochs: 9 is more than train.unfreeze.epochs (3)",
        ),
        (
            {"train.unfreeze.depth": {"log": [1, 4]}},
            "space.train.unfreeze.depth: log gives numbers like 1.955, which it does not take; use "
            "int or choice",
        ),
        (
            {
                "train.unfreeze.depth": {"choice": [0, 1]},
                "train.unfreeze.schedule": {"choice": ["gradual", "at_once"]},
            },
            "space.train.unfreeze.schedule: has no effect in any trial, since train.unfreeze.depth "
            "is 1: one stage opens at once; leave it out",
        ),
        (
            {"train.optimizer": {"choice": {"adamw": {"train.momentum": {"uniform": [0.5, 0.9]}}}}},
            "space.train.momentum: has no effect in any trial, since train.optimizer is adamw, "
            "which has no momentum; leave it out",
        ),
        (
            {
                "model.backbone": {
                    "choice": {
                        "vgg16": {"train.unfreeze.batch_norm": {"choice": ["keep", "adapt"]}},
                        "tf_efficientnet_lite0": None,
                    }
                }
            },
            "space.train.unfreeze.batch_norm: has no effect in any trial; leave it out",
        ),
    ],
)
def test_a_dimension_that_no_trial_can_use_is_refused(
    make_raw: Make, space: dict[str, Any], message: str
) -> None:
    depth = {"train.unfreeze.depth": 1} if "train.unfreeze.depth" in space else {}
    changes = {"space": space, "search.asha": "off", "train.unfreeze.epochs": 3, **depth}
    assert errors_of(resolve, make_raw(changes), Path()) == [message]


def test_a_range_that_a_field_refuses_is_told_as_such(make_raw: Make) -> None:
    space = {"train.optimizer": {"choice": ["sgd"]}, "train.momentum": {"uniform": [1.5, 2]}}
    errors = errors_of(resolve, make_raw({"space": space, "train.optimizer": "sgd"}), Path())
    assert errors and all("use int or choice" not in error for error in errors)


def test_what_decides_nothing_is_not_tried_in_every_way(
    make_raw: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = []
    walked = errors_module.walk
    monkeypatch.setattr(errors_module, "walk", lambda *parts: walks.append(0) or walked(*parts))
    augment = ["none", "flip", "light", "light_flip"]
    space = {
        "train.momentum": {"uniform": [0.5, 0.9]},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
        "train.augment": {"choice": augment},
        "train.unfreeze.batch_size": {"choice": [1, 2, 3, 4]},
        "train.head.batch_size": {"choice": [1, 2, 3, 4]},
        "train.head.lr": {"log": [1e-4, 1e-2]},
    }
    resolve(make_raw({"space": space}), Path())
    assert len(walks) < 10


def test_a_dimension_that_some_trial_can_use_is_sound(make_raw: Make) -> None:
    schedules = {"choice": ["gradual", "at_once"]}
    space = {
        "train.unfreeze.depth": {"int": [0, "all"]},
        "train.unfreeze.open_epochs": {"int": [1, 3]},
        "train.unfreeze.stage_lr_decay": {"uniform": [0.5, 1.0]},
        "train.momentum": {"uniform": [0.5, 0.9]},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
        "train.augment": {"choice": {"none": {"train.unfreeze.schedule": schedules}, "flip": None}},
    }
    resolve(make_raw({"space": space, "search.asha": "off"}), Path())


def test_files_among_the_weights_are_beside_the_yaml(make_raw: Make, tmp_path: Path) -> None:
    space = {"model.weights": {"choice": ["none", "gone.pth"]}}
    (error,) = errors_of(resolve, make_raw({"space": space}), tmp_path)
    assert error.startswith(f"space.model.weights: no file or folder {tmp_path / 'gone.pth'} (")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"detector": "fcos_resnet50_fpn", "weights": "coco", "backbone": "vgg16"}},
            "model.backbone: has no effect, since model.detector is fcos_resnet50_fpn, which has "
            "its own; leave it out",
        ),
        (
            {"model.backbone": "vgg16", "train.unfreeze.drop_path": 0.1},
            "train.unfreeze.drop_path: has no effect, since timm's vgg16 has no stochastic depth; "
            "leave it out",
        ),
    ],
)
def test_a_field_that_the_model_has_no_use_for_is_refused(
    make_raw: Make, changes: dict[str, Any], message: str
) -> None:
    assert errors_of(resolve, make_raw(changes), Path()) == [message]
