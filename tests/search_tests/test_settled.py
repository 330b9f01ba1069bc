"""What `auto` comes to: asked once, kept in the study."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console

from search import settled
from search.opening import open_search
from search.progress import Lines
from search.settled import (
    Settled,
    is_settled,
    largest_trial,
    record_settled,
    settle,
    settled_config,
)
from search.space import read_space
from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.timing import TrunkCacheChoice

Make = Callable[..., Any]


def test_precision_is_resolved_where_it_runs(tiny: Splits, tiny_config: Make) -> None:
    for wanted, legal in (("fp32", {"fp32"}), ("auto", {"fp32", "bf16", "fp16"})):
        config = tiny_config({"train.precision": wanted})
        assert settle(config, tiny, 1, None).precision in legal


def test_the_measurement_knows_the_precision(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainConfig] = []

    def choose(config: TrainConfig, data: Splits, threads: int) -> TrunkCacheChoice:
        seen.append(config)
        return TrunkCacheChoice(2, "why")

    monkeypatch.setattr(settled, "choose_trunk_cache", choose)
    monkeypatch.setattr(settled, "resolve", lambda wanted: "bf16")
    found = settle(tiny_config({"train.precision": "auto"}), tiny, 1, None)
    assert found == Settled("bf16", 2, "why")
    assert seen[0].train.precision == "bf16"


@pytest.mark.parametrize("value", [0, 2, "off"])
def test_it_is_recorded_said_once_and_found_again(
    make_search: Make, tiny: Splits, capsys: pytest.CaptureFixture[str], value: int | str
) -> None:
    config = make_search({"train.precision": "auto", "train.trunk_cache": "auto"})
    study = open_search(config, [], tiny)
    assert not is_settled(study)
    record_settled(study, Settled("bf16", value, "a line that says why"), Lines(Console()))
    assert capsys.readouterr().out == "a line that says why\n"
    again = open_search(config, [], tiny)
    assert is_settled(again)
    train = settled_config(config, again).train
    assert (train.precision, train.trunk_cache) == ("bf16", value)


def test_how_much_of_a_gpu_the_largest_takes_is_asked_where_there_is_one_to_ask(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, largest = tiny_config({}), tiny_config({"train.unfreeze.batch_size": 4})
    assert settle(written, tiny, 1, largest).gpu_share == 0  # a CPU has no memory of its own

    def measured(config: TrainConfig, data: Splits, threads: int) -> float:
        assert config == largest
        return 0.2

    monkeypatch.setattr(settled, "memory_share", measured)
    assert settle(written, tiny, 1, largest).gpu_share == 0.2
    assert settle(written, tiny, 1, None).gpu_share == 0

    def too_large(*_: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(settled, "memory_share", too_large)
    assert settle(written, tiny, 1, largest).gpu_share == 1


def test_the_largest_of_a_space_is_what_takes_most_memory(make_search: Make) -> None:
    schedules = {"at_once": {"train.unfreeze.batch_size": {"int": [1, 16]}}, "gradual": None}
    space = {
        "train.unfreeze.lr": {"log": [1e-4, 1e-2]},
        "train.head.batch_size": {"choice": [2, 8, 4]},
        "train.unfreeze.depth": {"choice": [1, "all", 3]},
        "train.unfreeze.schedule": {"choice": schedules},
        "model.image_size": {"choice": [96, 128]},
        "train.optimizer": {"choice": ["sgd", "adamw"]},
    }
    config = make_search({"space": space, "train.unfreeze.lr": 1e-3, "train.unfreeze.depth": 3})
    found = largest_trial(config, read_space(config.space))
    assert found is not None
    assert found.model.image_size == 128
    assert found.train.optimizer == "adamw"
    assert found.train.head.batch_size == 8
    unfreeze = found.train.unfreeze
    assert (unfreeze.batch_size, unfreeze.depth, unfreeze.lr) == (16, "all", 1e-3)


def test_of_several_models_nobody_knows_which_is_largest(make_search: Make) -> None:
    config = make_search(
        {"space": {"model.backbone": {"choice": ["tf_efficientnet_lite0", "resnet50"]}}}
    )
    assert largest_trial(config, read_space(config.space)) is None
