"""Fields by dotted paths: read, set, listed."""

from typing import Any

from trainer.config import Train, TrainConfig
from trainer.config_errors import parse
from trainer.config_fields import field_paths, get_field, is_set_by_user, set_field

Raw = dict[str, Any]


def train(**unfreeze: Any) -> Train:
    return parse(Train, {"unfreeze": unfreeze})


def test_a_default_that_the_user_sets_counts_as_set() -> None:
    config = train(depth=TrainConfig().train.unfreeze.depth)
    assert config == Train()
    assert is_set_by_user(config, "unfreeze.depth")
    assert not is_set_by_user(config, "unfreeze.lr")
    assert not is_set_by_user(Train(), "unfreeze.depth")


def test_override_creates_missing_mappings() -> None:
    raw: Raw = {"train": 1, "model": {"backbone": "a"}}
    set_field(raw, "train.unfreeze.depth", 2)
    set_field(raw, "model.weights", "none")
    set_field(raw, "name", "x")
    assert raw == {
        "train": {"unfreeze": {"depth": 2}},
        "model": {"backbone": "a", "weights": "none"},
        "name": "x",
    }


def test_get_reads_every_field() -> None:
    for path in field_paths(TrainConfig):
        get_field(TrainConfig(), path)
    assert get_field(TrainConfig(), "train.unfreeze.depth") == 3
