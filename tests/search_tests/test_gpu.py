"""Trials that share a GPU: `make gpu-tests`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console

from search.reporting.progress import Lines
from search.running.driver import run
from search.study.record import End
from search.study.storage import read_study

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() != 1, reason="there is not one CUDA device"),
]


def test_small_trials_share_a_gpu(
    make_search: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_search({"search.trials": 8, "search.asha": "off", "resources": "auto"})
    result = run(config, Lines(Console()))
    assert result.winner is not None
    study = read_study(config.folder, config.name)
    assert {record.end for record in study.records.values()} == {End.FINISHED}
    assert study.allocations[-1][1]["gpus_per_trial"] == 0.5  # a quarter of 8 trials at once
    assert "2 trials at once, 0.5 GPU each" in capsys.readouterr().out
