"""What a worker runs: every exception is an end that the study knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from search.study import End
from search.trial import resolve_precision, run_trial
from trainer.config import TrainConfig
from trainer.data.dataset import Splits

Make = Callable[..., Any]


def run(config: TrainConfig, data: Splits) -> dict[str, str]:
    asked = {"number": 3, "config": config.model_dump(mode="json")}
    return run_trial(asked, data=data, folder=Path("kept"), threads=torch.get_num_threads())


def test_a_trial_that_diverges_says_so(tiny: Splits, tiny_config: Make) -> None:
    wild = {"train.head.lr": 10.0, "train.optimizer": "sgd", "train.clip_norm": 1e6}
    ended = run(tiny_config(wild | {"train.warmup_epochs": 0}), tiny)
    assert ended["end"] == End.DIVERGED
    assert ended["text"]


def test_an_error_is_told_in_full(tiny: Splits, tiny_config: Make) -> None:
    ended = run(tiny_config({"train.unfreeze.depth": 99}), tiny)
    assert ended["end"] == End.ERROR
    assert ended["text"].startswith("Traceback")
    assert "train.unfreeze.depth: 99" in ended["text"]


def test_precision_is_resolved_where_it_runs() -> None:
    assert resolve_precision("fp32") == "fp32"
    assert resolve_precision("auto") in {"fp32", "bf16", "fp16"}
