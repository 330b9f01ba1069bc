"""Dimensions over dotted fields: which are read, and which are refused."""

from collections.abc import Callable
from typing import Any

import pytest

from search.space.space import (
    UNSEARCHABLE,
    Dimension,
    contains,
    read_space,
    values_by_field,
    with_values,
)
from trainer.config import TrainConfig

from ..conftest import ALL_KINDS, errors_of

Make = Callable[..., Any]
DEPTH = "train.unfreeze.depth"


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
def test_the_error_of_a_malformed_dimension_names_it(spec: Any) -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.lr": spec})
    assert error.startswith("space.train.unfreeze.lr: ")


def test_an_int_dimension_has_whole_bounds() -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.depth": {"int": [0, 2.5]}})
    assert error == "space.train.unfreeze.depth: int: [0, 2.5] (legal: whole numbers)"


@pytest.mark.parametrize("high", [float("inf"), float("nan")])
def test_bounds_are_finite(high: float) -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.depth": {"int": [0, high]}})
    assert error.startswith("space.train.unfreeze.depth: ")


@pytest.mark.parametrize("branch", [[1], 3, "lr"])
def test_the_space_of_a_choice_must_be_a_space(branch: Any) -> None:
    (error,) = errors_of(read_space, {"train.optimizer": {"choice": {"adamw": branch}}})
    assert error.startswith("space.train.optimizer")


def test_the_error_of_an_unknown_field_names_the_nearest() -> None:
    (error,) = errors_of(read_space, {"train.unfreeze.dept": {"int": [0, 2]}})
    assert error == "space.train.unfreeze.dept: unknown field; did you mean train.unfreeze.depth?"


@pytest.mark.parametrize("name", ["train.unfreeze", "search.trials", "name", "data.train"])
def test_only_plain_fields_of_model_and_train_are_dimensions(name: str) -> None:
    (error,) = errors_of(read_space, {name: {"choice": [1]}})
    assert error.startswith(f"space.{name}: unknown field")


@pytest.mark.parametrize("name", UNSEARCHABLE)
def test_the_error_of_an_unsearchable_field_says_why(name: str) -> None:
    (error,) = errors_of(read_space, {name: {"int": [1, 2]}})
    assert error == f"space.{name}: cannot be searched: {UNSEARCHABLE[name]}"


def test_errors_of_all_dimensions_are_raised_at_once_branches_included() -> None:
    space = {
        "train.unfreeze.lr": {"log": [0, 1]},
        "train.optimizer": {"choice": {"adamw": {"train.unfreeze.wd": {"log": [1e-6, 1]}}}},
    }
    errors = errors_of(read_space, space)
    assert [error.split(":")[0] for error in errors] == [
        "space.train.unfreeze.lr",
        "space.train.unfreeze.wd",
    ]


def test_apply_changes_only_the_given_fields_and_refuses_illegal_values(make_search: Make) -> None:
    base_config = make_search()
    changed = with_values(base_config, {"train.unfreeze.lr": 0.5})
    assert changed.train.unfreeze.lr == 0.5
    assert changed == with_values(changed, {})
    assert base_config.train.unfreeze.lr == 1e-3
    assert with_values(base_config, {}) == TrainConfig(
        model=base_config.model, train=base_config.train
    )
    (error,) = errors_of(with_values, base_config, {"train.unfreeze.lr": -1.0})
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


@pytest.mark.parametrize("name", ["train.unfreeze.weight_decay", "train.unfreeze.depth"])
def test_auto_is_for_learning_rates_alone(name: str) -> None:
    (error,) = errors_of(read_space, {name: {"log": "auto"}})
    assert error == f"space.{name}: log: 'auto' (legal: [low, high])"


def test_parameters_become_values_by_field() -> None:
    choice = {"sgd": {"train.unfreeze.lr": {"log": [1e-3, 1e-2]}}, "adamw": None}
    (optimizer,) = read_space({"train.optimizer": {"choice": choice}})
    (lr,) = optimizer.branches["sgd"]
    assert values_by_field({optimizer.parameter: "sgd", lr.parameter: 5e-3}) == {
        "train.optimizer": "sgd",
        "train.unfreeze.lr": 5e-3,
    }
