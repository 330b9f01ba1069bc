"""Fields by dotted paths: read, set, listed."""

from typing import Any

from trainer.config import Train, TrainConfig
from trainer.config_errors import parse
from trainer.config_fields import get, is_written, leaves, override

Raw = dict[str, Any]


def train(**unfreeze: Any) -> Train:
    return parse(Train, {"unfreeze": unfreeze})


def test_a_default_that_the_user_sets_counts_as_set() -> None:
    config = train(depth=TrainConfig().train.unfreeze.depth)
    assert config == Train()
    assert is_written(config, "unfreeze.depth")
    assert not is_written(config, "unfreeze.lr")
    assert not is_written(Train(), "unfreeze.depth")


def test_override_creates_missing_mappings() -> None:
    raw: Raw = {"train": 1, "model": {"backbone": "a"}}
    override(raw, "train.unfreeze.depth", 2)
    override(raw, "model.weights", "none")
    override(raw, "name", "x")
    assert raw == {
        "train": {"unfreeze": {"depth": 2}},
        "model": {"backbone": "a", "weights": "none"},
        "name": "x",
    }


def test_get_reads_every_field() -> None:
    for path in leaves(TrainConfig):
        get(TrainConfig(), path)
    assert get(TrainConfig(), "train.unfreeze.depth") == 3
