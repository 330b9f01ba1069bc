"""How long epochs will take."""

from collections.abc import Callable
from typing import Any

import torch

from trainer.data.dataset import Splits
from trainer.timing import time_epochs


def test_an_epoch_takes_longer_the_more_steps_it_has(
    tiny: Splits, tiny_config: Callable[..., Any]
) -> None:
    threads = torch.get_num_threads()
    timing = time_epochs(tiny_config({"train.unfreeze.depth": "all"}), tiny, threads=1)
    assert 0 < timing.head < 60 and 0 < timing.unfrozen < 60
    assert torch.get_num_threads() == threads


def test_without_a_head_phase_the_first_phase_is_timed(
    tiny: Splits, tiny_config: Callable[..., Any]
) -> None:
    assert time_epochs(tiny_config({"train.head": {"epochs": 0}}), tiny, 1).head > 0
