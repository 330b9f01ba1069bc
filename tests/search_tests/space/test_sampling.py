"""Which dimensions of a space a trial is given, and their values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.space.sampling import base_parameters, choose_values, suggest
from search.space.space import Dimension, read_space, with_values
from search.space.space_validation import reachable_models
from search.space.validation import checked_config
from trainer.config import TrainConfig
from trainer.config_fields import get_field

from ..conftest import ALL_KINDS, SPACE

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


def suggested(space: Any, base_config: TrainConfig, **fixed: Any) -> dict[str, Any]:
    """The values of a trial if Optuna chooses these parameters."""
    parameters = {name.replace("__", "."): value for name, value in fixed.items()}
    return suggest(read_space(space), base_config, optuna.trial.FixedTrial(parameters))


# -- choosing -------------------------------------------------------------------------------------


def test_suggested_values_have_the_types_of_their_fields(make_search: Make) -> None:
    base_config = make_search({"space": ALL_KINDS})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = suggest(read_space(ALL_KINDS), base_config, study.ask())
        assert values.keys() == ALL_KINDS.keys()
        assert type(values["train.unfreeze.depth"]) is int
        assert type(values["train.unfreeze.lr"]) is float
        assert 1 <= values["train.unfreeze.depth"] <= 3
        assert 1e-4 <= values["train.unfreeze.lr"] <= 1e-2
        assert 0.05 <= values["train.unfreeze.backbone_lr_ratio"] <= 0.5
        assert values["train.unfreeze.batch_size"] in (2, 4)
        config = with_values(base_config, values)
        assert {name: get_field(config, name) for name in values} == values


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "convnext_tiny"])
def test_all_is_the_number_of_stages(make_search: Make, backbone: str) -> None:
    base_config = make_search({"model.backbone": backbone})
    space = read_space({"train.unfreeze.depth": {"int": [0, "all"]}})
    highs: list[Any] = []

    def choose(dimension: Dimension, value: Any) -> Any:
        highs.append(dimension.high)
        return value

    choose_values(space, base_config, choose)
    assert highs == [4 if backbone == "convnext_tiny" else 5]


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

    choose_values(read_space(space), make_search(), choose)
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


def test_the_parameter_in_a_nested_branch_names_all_its_choices() -> None:
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

    assert choose_values(space, make_search(), choose).keys() == left | {"train.unfreeze.depth"}


def test_open_epochs_are_suggested_only_where_stages_open_gradually(make_search: Make) -> None:
    space = {
        "train.unfreeze.open_epochs": {"int": [1, 3]},
        "train.unfreeze.schedule": {"choice": ["gradual", "at_once"]},
    }
    assert suggested(space, make_search(), train__unfreeze__schedule="at_once") == {
        "train.unfreeze.schedule": "at_once"
    }


def test_values_from_a_branch_decide_which_other_dimensions_have_an_effect(
    make_search: Make,
) -> None:
    schedules = {"choice": ["gradual", "at_once"]}
    space = {
        "train.unfreeze.open_epochs": {"int": [1, 3]},
        "train.augment": {"choice": {"none": {"train.unfreeze.schedule": schedules}, "flip": None}},
    }
    values = suggested(
        space,
        make_search(),
        train__augment="none",
        **{"train__unfreeze__schedule (train.augment=none)": "at_once"},
    )
    assert "train.unfreeze.open_epochs" not in values


def test_momentum_is_suggested_only_under_sgd(make_search: Make) -> None:
    space = {
        "train.momentum": {"uniform": [0.5, 0.99]},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    assert suggested(space, make_search(), train__optimizer="adamw") == {"train.optimizer": "adamw"}


# -- the base configuration -----------------------------------------------------------------------


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
def test_the_parameters_of_the_base_config_give_the_base_config(
    make_search: Make, unfreeze: dict[str, Any]
) -> None:
    changes = {f"train.unfreeze.{name}": value for name, value in unfreeze.items()}
    base_config = make_search({"space": SPACE, **changes})
    space = read_space(base_config.space)
    values = suggest(
        space, base_config, optuna.trial.FixedTrial(base_parameters(space, base_config))
    )
    depth = 5 if unfreeze.get("depth") == "all" else get_field(base_config, DEPTH)
    assert with_values(base_config, values) == with_values(base_config, {DEPTH: depth})


def test_depth_all_of_the_base_config_is_a_number_for_optuna(make_search: Make) -> None:
    base_config = make_search({"space": SPACE, DEPTH: "all"})
    assert base_parameters(read_space(SPACE), base_config)[DEPTH] == 5


def test_auto_is_the_range_of_the_trials_optimizer(make_raw: Make) -> None:
    space = {
        "train.unfreeze.lr": {"log": "auto"},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    base_config = checked_config(make_raw({"space": space}), Path())
    for optimizer, lr in (("adamw", 2e-4), ("sgd", 2e-2)):
        name = f"train.unfreeze.lr (train.optimizer={optimizer})"
        values = suggested(space, base_config, **{"train.optimizer": optimizer, name: lr})
        assert values == {"train.optimizer": optimizer, "train.unfreeze.lr": lr}
    assert base_parameters(read_space(space), base_config) == {
        "train.optimizer": "adamw",
        "train.unfreeze.lr (train.optimizer=adamw)": 1e-3,
    }


MODELS = {
    "model.detector": {
        "choice": {
            "retinanet": {"model.backbone": {"choice": ["tf_efficientnet_lite0", "resnet18"]}},
            "fcos_resnet50_fpn": {"model.weights": {"choice": ["coco", "none"]}},
        }
    }
}


def test_detectors_with_and_without_a_built_in_backbone_are_searched_together(
    make_raw: Make,
) -> None:
    base_config = checked_config(
        make_raw({"space": {**MODELS, DEPTH: {"int": [0, "all"]}}}), Path()
    )
    models = list(reachable_models(read_space(base_config.space), base_config))
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
    assert suggested(base_config.space, base_config, **parameters)["model.weights"] == "coco"


def test_a_dimension_that_the_model_lacks_is_not_suggested(make_raw: Make) -> None:
    space = {
        "model.backbone": {"choice": ["tf_efficientnet_lite0", "vgg16"]},
        "train.unfreeze.drop_path": {"uniform": [0, 0.3]},
    }
    base_config = checked_config(make_raw({"space": space}), Path())
    fixed = {"train.unfreeze.drop_path": 0.2}
    assert "train.unfreeze.drop_path" in suggested(
        space, base_config, **{"model.backbone": "tf_efficientnet_lite0"}, **fixed
    )
    assert "train.unfreeze.drop_path" not in suggested(
        space, base_config, **{"model.backbone": "vgg16"}, **fixed
    )


def test_a_dimension_in_a_branch_replaces_that_of_the_same_field_outside(make_search: Make) -> None:
    both = {
        "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
        "train.optimizer": {
            "choice": {"sgd": {"train.unfreeze.lr": {"log": [1e-3, 3e-2]}}, "adamw": {}}
        },
    }
    in_branch = {"train.unfreeze.lr (train.optimizer=sgd)": 2e-2}
    values = suggested(both, make_search(), train__optimizer="sgd", **in_branch)
    assert values == {"train.optimizer": "sgd", "train.unfreeze.lr": 2e-2}
    values = suggested(both, make_search(), train__optimizer="adamw", **{"train.unfreeze.lr": 2e-3})
    assert values == {"train.optimizer": "adamw", "train.unfreeze.lr": 2e-3}
