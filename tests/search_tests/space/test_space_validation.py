"""Errors in a search space, each with its path, value and legal range."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.space import space_validation
from search.space.sampling import choose_values, suggest
from search.space.space import read_space, with_values
from search.space.validation import checked_config
from trainer.config import InputError

from ..conftest import SPACE, errors_of

Make = Callable[..., Any]


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
    errors = errors_of(checked_config, make_raw({"space": {name: spec}}), Path())
    assert all(error.startswith(f"space.{name}") or f"space.{name}" in error for error in errors)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("train.unfreeze.batch_size", {"log": [2, 16]}),
        ("train.unfreeze.depth", {"uniform": [0, "all"]}),
        ("model.image_size", {"int": [64, 128]}),
    ],
)
def test_an_accepted_dimension_only_gives_values_that_its_field_takes(
    make_raw: Make, name: str, spec: Any
) -> None:
    try:
        config = checked_config(make_raw({"space": {name: spec}}), Path())
    except InputError as error:
        assert error.errors[0].startswith(f"space.{name}")
        return
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        with_values(config, suggest(read_space(config.space), config, study.ask()))


def test_an_unknown_backbone_among_the_choices_is_an_error(make_raw: Make) -> None:
    space = {"model.backbone": {"choice": ["tf_efficientnet_lite0", "resnet5000"]}}
    (error,) = errors_of(checked_config, make_raw({"space": space}), Path())
    assert "resnet5000" in error


def test_depths_must_fit_every_backbone_among_the_choices(make_raw: Make) -> None:
    space = {
        "model.backbone": {"choice": ["tf_efficientnet_lite0", "convnext_tiny"]},
        "train.unfreeze.depth": {"int": [0, 5]},
    }
    (error,) = errors_of(checked_config, make_raw({"space": space}), Path())
    assert "train.unfreeze.depth" in error


def test_trial_0_must_lie_in_the_space(make_raw: Make) -> None:
    (error,) = errors_of(
        checked_config, make_raw({"space": {"train.unfreeze.lr": {"log": [2e-3, 1e-2]}}}), Path()
    )
    assert error == (
        "train.unfreeze.lr: 0.001, its value in trial 0, lies outside its dimension "
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
    assert part in "\n".join(errors_of(checked_config, raw, Path()))


def test_the_depth_of_a_first_point_must_be_one_of_the_backbones(make_raw: Make) -> None:
    raw = make_raw({"space": SPACE, "search.first": [{"train.unfreeze.depth": 9}]})
    (error,) = errors_of(checked_config, raw, Path())
    assert "train.unfreeze.depth: 9" in error


def test_a_first_point_sets_only_what_is_searched(make_raw: Make) -> None:
    raw = make_raw({"space": SPACE, "search.first": [{"train.head.lr": 0.01}]})
    (error,) = errors_of(checked_config, raw, Path())
    assert "train.head.lr" in error


def test_a_first_point_outside_the_range_of_its_optimizer_is_an_error(make_raw: Make) -> None:
    space = {
        "train.unfreeze.lr": {"log": "auto"},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    first = [{"train.optimizer": "sgd", "train.unfreeze.lr": 2e-4}]
    (error,) = errors_of(checked_config, make_raw({"space": space, "search.first": first}), Path())
    assert "log 0.001 to 0.03" in error


def test_a_combination_of_detector_and_weights_that_cannot_be_built_is_an_error(
    make_raw: Make,
) -> None:
    space = {"model.detector": {"choice": ["retinanet", "ssdlite320_mobilenet_v3_large"]}}
    (error,) = errors_of(
        checked_config, make_raw({"space": space, "model.weights": "imagenet"}), Path()
    )
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
    assert errors_of(checked_config, make_raw(changes), Path()) == [message]


def test_the_error_of_a_range_outside_the_fields_range_does_not_advise_another_kind(
    make_raw: Make,
) -> None:
    space = {"train.optimizer": {"choice": ["sgd"]}, "train.momentum": {"uniform": [1.5, 2]}}
    errors = errors_of(checked_config, make_raw({"space": space, "train.optimizer": "sgd"}), Path())
    assert errors and all("use int or choice" not in error for error in errors)


def test_values_of_fields_that_decide_nothing_are_not_all_tried(
    make_raw: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = []

    def count(*arguments: Any) -> Any:
        walks.append(0)
        return choose_values(*arguments)

    monkeypatch.setattr(space_validation, "choose_values", count)
    augment = ["none", "flip", "light", "light_flip"]
    space = {
        "train.momentum": {"uniform": [0.5, 0.9]},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
        "train.augment": {"choice": augment},
        "train.unfreeze.batch_size": {"choice": [1, 2, 3, 4]},
        "train.head.batch_size": {"choice": [1, 2, 3, 4]},
        "train.head.lr": {"log": [1e-4, 1e-2]},
    }
    checked_config(make_raw({"space": space}), Path())
    assert len(walks) < 10


def test_a_dimension_that_some_trial_can_use_is_valid(make_raw: Make) -> None:
    schedules = {"choice": ["gradual", "at_once"]}
    space = {
        "train.unfreeze.depth": {"int": [0, "all"]},
        "train.unfreeze.open_epochs": {"int": [1, 3]},
        "train.unfreeze.stage_lr_decay": {"uniform": [0.5, 1.0]},
        "train.momentum": {"uniform": [0.5, 0.9]},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
        "train.augment": {"choice": {"none": {"train.unfreeze.schedule": schedules}, "flip": None}},
    }
    checked_config(make_raw({"space": space, "search.asha": "off"}), Path())


def test_files_among_the_weights_are_relative_to_the_yaml(make_raw: Make, tmp_path: Path) -> None:
    space = {"model.weights": {"choice": ["none", "gone.pth"]}}
    (error,) = errors_of(checked_config, make_raw({"space": space}), tmp_path)
    assert error.startswith(f"space.model.weights: no file or folder {tmp_path / 'gone.pth'} (")
