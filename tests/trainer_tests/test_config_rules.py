"""Rules between fields: values without effect, and values that contradict each other."""

from typing import Any

import pytest

from trainer.config import Train
from trainer.config_errors import parse
from trainer.config_rules import cross_field_errors, fields_without_effect

Raw = dict[str, Any]


def train(**unfreeze: Any) -> Train:
    return parse(Train, {"unfreeze": unfreeze})


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"optimizer": "sgd"}, set()),
        ({"optimizer": "adamw"}, {"momentum"}),
        (
            {"optimizer": "sgd", "unfreeze": {"depth": 0}},
            {
                "unfreeze.backbone_lr_ratio",
                "unfreeze.stage_lr_decay",
                "unfreeze.drop_path",
                "unfreeze.batch_norm",
                "unfreeze.schedule",
                "unfreeze.open_epochs",
            },
        ),
        (
            {"optimizer": "sgd", "unfreeze": {"depth": 1}},
            {"unfreeze.schedule", "unfreeze.open_epochs", "unfreeze.stage_lr_decay"},
        ),
        ({"optimizer": "sgd", "unfreeze": {"schedule": "at_once"}}, {"unfreeze.open_epochs"}),
        ({"optimizer": "sgd", "unfreeze": {"depth": "all"}}, set()),
        (
            {"optimizer": "sgd", "head": {"epochs": 0}},
            {"head.batch_size", "head.lr", "head.weight_decay"},
        ),
    ],
)
def test_fields_without_effect_are_named(raw: Raw, expected: set[str]) -> None:
    assert set(fields_without_effect(parse(Train, raw))) == {f"train.{name}" for name in expected}


def test_setting_a_field_without_effect_is_an_error() -> None:
    assert cross_field_errors(train(depth=0, backbone_lr_ratio=0.5)) == [
        "train.unfreeze.backbone_lr_ratio: has no effect, since train.unfreeze.depth is 0: "
        "no backbone stage trains; leave it out"
    ]


def test_a_default_without_effect_is_no_error() -> None:
    assert cross_field_errors(train(depth=0)) == []


@pytest.mark.parametrize("depth", [0, 1])
def test_neutral_values_may_be_set(depth: int) -> None:
    assert cross_field_errors(train(depth=depth, schedule="at_once", stage_lr_decay=1.0)) == []
    errors = cross_field_errors(train(depth=depth, schedule="gradual", stage_lr_decay=0.5))
    assert sorted(line.partition(":")[0] for line in errors) == [
        "train.unfreeze.schedule",
        "train.unfreeze.stage_lr_decay",
    ]


def test_the_fixed_value_of_a_searched_field_may_have_no_effect() -> None:
    searched = frozenset({"train.unfreeze.backbone_lr_ratio"})
    assert cross_field_errors(train(depth=0, backbone_lr_ratio=0.5), searched) == []


def test_every_field_may_have_an_effect_when_depth_is_searched() -> None:
    searched = frozenset({"train.unfreeze.depth"})
    assert cross_field_errors(train(depth=0, backbone_lr_ratio=0.5), searched) == []


@pytest.mark.parametrize("depth", [2, "all"])
def test_more_opening_epochs_than_epochs_is_an_error(depth: Any) -> None:
    (error,) = cross_field_errors(train(depth=depth, epochs=3, open_epochs=4))
    assert error.startswith("train.unfreeze.open_epochs: 4 is more than train.unfreeze.epochs (3)")


def test_as_many_opening_epochs_as_epochs_is_no_error() -> None:
    assert cross_field_errors(train(depth=2, epochs=3, open_epochs=3)) == []


def test_at_once_needs_no_opening_epochs() -> None:
    assert cross_field_errors(train(schedule="at_once", epochs=1)) == []


@pytest.mark.parametrize("depth", [0, 1])
def test_one_epoch_is_enough_at_depth_0_and_1(depth: int) -> None:
    assert cross_field_errors(train(depth=depth, epochs=1)) == []


def test_an_ignored_space_gives_fields_their_effect_and_needs_no_opening_epochs() -> None:
    ignored = frozenset({"train.unfreeze.schedule"})
    config = train(schedule="at_once", epochs=1, open_epochs=4)
    assert cross_field_errors(config, ignored=ignored) == []
    assert len(cross_field_errors(config, searched=ignored)) == 1
