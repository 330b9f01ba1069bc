"""Dimensions over dotted fields: what is refused, and what is suggested when."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.config import resolve
from search.space import (
    FIXED,
    Dimension,
    apply,
    as_written,
    contains,
    reachable,
    read_space,
    suggest,
    walk,
)
from trainer.config import BadInput, TrainConfig, get

from .conftest import SPACE

Make = Callable[..., Any]
DEPTH = "train.unfreeze.depth"
OPTIMIZERS = {
    "train.optimizer": {
        "choice": {
            "adamw": {"train.unfreeze.lr": {"log": [1e-4, 1e-2]}},
            "sgd": {
                "train.unfreeze.lr": {"log": [1e-3, 3e-2]},
                "train.momentum": {"uniform": [0.5, 0.99]},
            },
        }
    }
}
ALL_KINDS = {
    "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
    "train.unfreeze.backbone_lr_ratio": {"uniform": [0.05, 0.5]},
    "train.unfreeze.depth": {"int": [1, 3]},
    "train.unfreeze.batch_size": {"choice": [2, 4]},
}


def errors_of(call: Callable[..., Any], *arguments: Any) -> list[str]:
    with pytest.raises(BadInput) as raised:
        call(*arguments)
    return raised.value.errors


def suggested(space: Any, written: TrainConfig, **fixed: Any) -> dict[str, Any]:
    """What a trial is given when Optuna's choices are these."""
    parameters = {name.replace("__", "."): value for name, value in fixed.items()}
    return suggest(read_space(space), written, optuna.trial.FixedTrial(parameters))


# -- reading --------------------------------------------------------------------------------------


def test_every_kind_of_dimension_is_read() -> None:
    by_name = {dimension.name: dimension for dimension in read_space(ALL_KINDS)}
    assert by_name == {
        "train.unfreeze.lr": Dimension("train.unfreeze.lr", "log", 1e-4, 1e-2),
        "train.unfreeze.backbone_lr_ratio": Dimension(
            "train.unfreeze.backbone_lr_ratio", "uniform", 0.05, 0.5
        ),
        "train.unfreeze.depth": Dimension("train.unfreeze.depth", "int", 1, 3),
        "train.unfreeze.batch_size": Dimension(
            "train.unfreeze.batch_size", "choice", choices=(2, 4)
        ),
    }


@pytest.mark.parametrize(
    "spec",
    [
        None,
        3,
        [1, 2],
        {},
        {"log": [1e-4, 1e-2], "int": [1, 2]},
        {"normal": [0, 1]},
        {"log": [1e-4]},
        {"log": [1e-4, 1e-3, 1e-2]},
        {"log": "1e-4 to 1e-2"},
        {"log": ["1e-4", 1e-2]},
        {"log": [0, 1e-2]},
        {"log": [-1, 1e-2]},
        {"log": [1e-2, 1e-4]},
        {"uniform": [0.1, 0.1]},
        {"uniform": [False, True]},
        {"choice": []},
        {"choice": {}},
        {"choice": 3},
        {"choice": None},
    ],
)
def test_what_is_no_dimension_is_refused_by_name(spec: Any) -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.lr": spec})
    assert error.startswith("space.train.unfreeze.lr: ")


def test_an_int_dimension_has_whole_bounds() -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.depth": {"int": [0, 2.5]}})
    assert error == "space.train.unfreeze.depth: int: [0, 2.5] (legal: whole numbers)"


@pytest.mark.parametrize("high", [float("inf"), float("nan")])
def test_bounds_are_finite(high: float) -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.depth": {"int": [0, high]}})
    assert error.startswith("space.train.unfreeze.depth: ")


@pytest.mark.parametrize("own", [[1], 3, "lr"])
def test_a_choices_own_space_is_a_space(own: Any) -> None:
    (error,) = errors_of(read_space, {"train.optimizer": {"choice": {"adamw": own}}})
    assert error.startswith("space.train.optimizer")


def test_an_unknown_field_is_told_with_the_nearest() -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.dept": {"int": [0, 2]}})
    assert error == "space.train.unfreeze.dept: unknown field; did you mean train.unfreeze.depth?"


@pytest.mark.parametrize("name", ["train.unfreeze", "search.trials", "name", "data.train"])
def test_only_plain_fields_of_model_and_train_are_dimensions(name: str) -> None:
    (error,) = errors_of(read_space, {name: {"choice": [1]}})
    assert error.startswith(f"space.{name}: unknown field")


@pytest.mark.parametrize("name", FIXED)
def test_a_field_that_must_stay_says_why(name: str) -> None:
    (error,) = errors_of(read_space, {name: {"int": [1, 2]}})
    assert error == f"space.{name}: cannot be searched: {FIXED[name]}"


def test_errors_of_all_dimensions_are_told_at_once_also_within_branches() -> None:
    space = {
        "train.unfreeze.lr": {"log": [0, 1]},
        "train.optimizer": {"choice": {"adamw": {"train.unfreeze.wd": {"log": [1e-6, 1]}}}},
    }
    errors = errors_of(read_space, space)
    assert [error.split(":")[0] for error in errors] == [
        "space.train.unfreeze.lr",
        "space.train.unfreeze.wd",
    ]


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


# -- choosing -------------------------------------------------------------------------------------


def test_suggested_values_have_the_types_of_their_fields(make_search: Make) -> None:
    written = make_search({"space": ALL_KINDS})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = suggest(read_space(ALL_KINDS), written, study.ask())
        assert values.keys() == ALL_KINDS.keys()
        assert type(values["train.unfreeze.depth"]) is int
        assert type(values["train.unfreeze.lr"]) is float
        assert 1 <= values["train.unfreeze.depth"] <= 3
        assert 1e-4 <= values["train.unfreeze.lr"] <= 1e-2
        assert 0.05 <= values["train.unfreeze.backbone_lr_ratio"] <= 0.5
        assert values["train.unfreeze.batch_size"] in (2, 4)
        config = apply(written, values)
        assert {name: get(config, name) for name in values} == values


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "convnext_tiny"])
def test_all_is_the_number_of_stages(make_search: Make, backbone: str) -> None:
    written = make_search({"model.backbone": backbone})
    space = read_space({"train.unfreeze.depth": {"int": [0, "all"]}})
    seen: list[Any] = []
    walk(space, written, lambda dimension, value: seen.append(dimension.high) or value)
    assert seen == [4 if backbone == "convnext_tiny" else 5]


@pytest.mark.parametrize("backbone_first", [True, False])
def test_all_follows_the_backbone_that_was_chosen(make_search: Make, backbone_first: bool) -> None:
    space: dict[str, Any] = {"train.unfreeze.depth": {"int": [0, "all"]}}
    choice = {"model.backbone": {"choice": ["tf_efficientnet_lite0", "convnext_tiny"]}}
    space = choice | space if backbone_first else space | choice
    highs: list[Any] = []

    def choose(dimension: Dimension, value: Any) -> Any:
        if dimension.name == "model.backbone":
            return "convnext_tiny"
        highs.append(dimension.high)
        return value

    walk(read_space(space), make_search(), choose)
    assert highs == [4]


def test_a_branch_exists_only_under_its_choice(make_search: Make) -> None:
    under_adamw = suggested(
        OPTIMIZERS,
        make_search(),
        train__optimizer="adamw",
        **{"train.unfreeze.lr (train.optimizer=adamw)": 5e-4},
    )
    assert under_adamw == {"train.optimizer": "adamw", "train.unfreeze.lr": 5e-4}
    under_sgd = suggested(
        OPTIMIZERS,
        make_search(),
        train__optimizer="sgd",
        **{
            "train.unfreeze.lr (train.optimizer=sgd)": 2e-2,
            "train.momentum (train.optimizer=sgd)": 0.8,
        },
    )
    assert under_sgd == {
        "train.optimizer": "sgd",
        "train.unfreeze.lr": 2e-2,
        "train.momentum": 0.8,
    }


def test_branches_nest_and_name_the_whole_way() -> None:
    space = read_space(
        {
            "train.optimizer": {
                "choice": {
                    "sgd": {
                        "train.unfreeze.schedule": {
                            "choice": {"gradual": {"train.unfreeze.open_epochs": {"int": [1, 3]}}}
                        }
                    },
                    "adamw": None,
                }
            }
        }
    )
    schedule = space[0].branches["sgd"][0]
    opening = schedule.branches["gradual"][0]
    assert opening.parameter == (
        "train.unfreeze.open_epochs (train.optimizer=sgd train.unfreeze.schedule=gradual)"
    )
    assert space[0].branches["adamw"] == []


@pytest.mark.parametrize(
    ("depth", "left"),
    [
        (0, {"train.unfreeze.lr"}),
        (1, {"train.unfreeze.lr", "train.unfreeze.backbone_lr_ratio"}),
        (
            2,
            {
                "train.unfreeze.lr",
                "train.unfreeze.backbone_lr_ratio",
                "train.unfreeze.schedule",
                "train.unfreeze.open_epochs",
            },
        ),
    ],
)
@pytest.mark.parametrize("depth_first", [True, False])
def test_a_dimension_without_effect_at_the_chosen_depth_is_not_suggested(
    make_search: Make, depth: int, left: set[str], depth_first: bool
) -> None:
    others = {
        "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
        "train.unfreeze.open_epochs": {"int": [1, 3]},
        "train.unfreeze.schedule": {"choice": ["gradual", "at_once"]},
        "train.unfreeze.backbone_lr_ratio": {"uniform": [0.1, 0.5]},
    }
    of_depth = {"train.unfreeze.depth": {"int": [0, "all"]}}
    space = read_space(of_depth | others if depth_first else others | of_depth)

    def choose(dimension: Dimension, value: Any) -> Any:
        return depth if dimension.name == "train.unfreeze.depth" else value

    assert walk(space, make_search(), choose).keys() == left | {"train.unfreeze.depth"}


def test_open_epochs_are_suggested_only_where_stages_open_gradually(make_search: Make) -> None:
    space = {
        "train.unfreeze.open_epochs": {"int": [1, 3]},
        "train.unfreeze.schedule": {"choice": ["gradual", "at_once"]},
    }
    assert suggested(space, make_search(), train__unfreeze__schedule="at_once") == {
        "train.unfreeze.schedule": "at_once"
    }


def test_momentum_is_suggested_only_under_sgd(make_search: Make) -> None:
    space = {
        "train.momentum": {"uniform": [0.5, 0.99]},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    assert suggested(space, make_search(), train__optimizer="adamw") == {"train.optimizer": "adamw"}


# -- the configuration as written, and back -------------------------------------------------------


@pytest.mark.parametrize(
    "unfreeze",
    [
        {},
        {"depth": "all"},
        {"depth": 0},
        {"depth": 1, "lr": 3e-3},
        {"schedule": "at_once"},
    ],
)
def test_the_configuration_as_written_survives_the_way_through_its_parameters(
    make_search: Make, unfreeze: dict[str, Any]
) -> None:
    changes = {f"train.unfreeze.{name}": value for name, value in unfreeze.items()}
    written = make_search({"space": SPACE, **changes})
    space = read_space(written.space)
    values = suggest(space, written, optuna.trial.FixedTrial(as_written(space, written)))
    depth = 5 if unfreeze.get("depth") == "all" else get(written, DEPTH)
    assert apply(written, values) == apply(written, {DEPTH: depth})


def test_all_as_written_is_told_to_optuna_as_a_number(make_search: Make) -> None:
    written = make_search({"space": SPACE, DEPTH: "all"})
    assert as_written(read_space(SPACE), written)[DEPTH] == 5


def test_apply_changes_nothing_else_and_refuses_what_is_illegal(make_search: Make) -> None:
    written = make_search()
    changed = apply(written, {"train.unfreeze.lr": 0.5})
    assert changed.train.unfreeze.lr == 0.5
    assert changed == apply(changed, {})
    assert written.train.unfreeze.lr == 1e-3
    assert apply(written, {}) == TrainConfig(model=written.model, train=written.train)
    (error,) = errors_of(apply, written, {"train.unfreeze.lr": -1.0})
    assert error.startswith("train.unfreeze.lr: -1.0")


@pytest.mark.parametrize(
    ("spec", "value", "inside"),
    [
        ({"int": [0, "all"]}, 0, True),
        ({"int": [1, 3]}, 0, False),
        ({"int": [1, 3]}, 3, True),
        ({"int": [1, 3]}, "all", False),
        ({"choice": [1, 2]}, 3, False),
        ({"choice": [1, "all"]}, "all", True),
    ],
)
def test_a_value_lies_in_a_dimension_or_not(spec: Any, value: Any, inside: bool) -> None:
    (dimension,) = read_space({DEPTH: spec})
    assert contains(dimension, value) is inside


# -- models, and an optimizer's own range ---------------------------------------------------------


def test_auto_is_the_own_range_of_the_trials_optimizer(make_raw: Make) -> None:
    space = {
        "train.unfreeze.lr": {"log": "auto"},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    written = resolve(make_raw({"space": space}), Path())
    for optimizer, lr in (("adamw", 2e-4), ("sgd", 2e-2)):
        name = f"train.unfreeze.lr (train.optimizer={optimizer})"
        values = suggested(space, written, **{"train.optimizer": optimizer, name: lr})
        assert values == {"train.optimizer": optimizer, "train.unfreeze.lr": lr}
    assert as_written(read_space(space), written) == {
        "train.optimizer": "adamw",
        "train.unfreeze.lr (train.optimizer=adamw)": 1e-3,
    }


def test_a_first_point_outside_its_optimizers_range_is_told(make_raw: Make) -> None:
    space = {
        "train.unfreeze.lr": {"log": "auto"},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    first = [{"train.optimizer": "sgd", "train.unfreeze.lr": 2e-4}]
    (error,) = errors_of(resolve, make_raw({"space": space, "search.first": first}), Path())
    assert "log 0.001 to 0.03" in error


@pytest.mark.parametrize("name", ["train.unfreeze.weight_decay", "train.unfreeze.depth"])
def test_auto_is_for_learning_rates_alone(name: str) -> None:
    (error,) = errors_of(read_space, {name: {"log": "auto"}})
    assert error == f"space.{name}: log: 'auto' (legal: [low, high])"


MODELS = {
    "model.detector": {
        "choice": {
            "retinanet": {"model.backbone": {"choice": ["tf_efficientnet_lite0", "resnet18"]}},
            "fcos_resnet50_fpn": {"model.weights": {"choice": ["coco", "none"]}},
        }
    }
}


def test_detectors_with_and_without_a_backbone_of_their_own_are_searched_together(
    make_raw: Make,
) -> None:
    written = resolve(make_raw({"space": {**MODELS, DEPTH: {"int": [0, "all"]}}}), Path())
    models = list(reachable(read_space(written.space), written))
    assert [(m.detector, m.backbone, m.weights) for m in models] == [
        ("retinanet", "tf_efficientnet_lite0", "none"),
        ("retinanet", "resnet18", "none"),
        ("fcos_resnet50_fpn", "tf_efficientnet_lite0", "coco"),
        ("fcos_resnet50_fpn", "tf_efficientnet_lite0", "none"),
    ]
    parameters = {
        "model.detector": "fcos_resnet50_fpn",
        "model.weights (model.detector=fcos_resnet50_fpn)": "coco",
        DEPTH: 5,
    }
    assert suggested(written.space, written, **parameters)["model.weights"] == "coco"


def test_a_combination_that_cannot_be_is_told_before_anything_starts(make_raw: Make) -> None:
    space = {"model.detector": {"choice": ["retinanet", "ssdlite320_mobilenet_v3_large"]}}
    (error,) = errors_of(resolve, make_raw({"space": space, "model.weights": "imagenet"}), Path())
    assert error.startswith("space.model.weights: imagenet (legal for ssdlite320_mobilenet_v3")


def test_what_no_trials_model_has_is_not_suggested(make_raw: Make) -> None:
    space = {
        "model.backbone": {"choice": ["tf_efficientnet_lite0", "vgg16"]},
        "train.unfreeze.drop_path": {"uniform": [0, 0.3]},
    }
    written = resolve(make_raw({"space": space}), Path())
    fixed = {"train.unfreeze.drop_path": 0.2}
    assert "train.unfreeze.drop_path" in suggested(
        space, written, **{"model.backbone": "tf_efficientnet_lite0"}, **fixed
    )
    assert "train.unfreeze.drop_path" not in suggested(
        space, written, **{"model.backbone": "vgg16"}, **fixed
    )


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
