"""What `auto` resolves to: measured once, kept in the study."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from search.reporting.progress import Lines
from search.running import auto
from search.running.auto import Settled, is_resolved, record_resolved, resolved_config, settle
from search.study.opening import open_search
from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.precision import resolve
from trainer.training.probe import TrunkCacheChoice

Make = Callable[..., Any]


def test_precision_is_resolved_where_it_runs(tiny: Splits, tiny_config: Make) -> None:
    for wanted in ("fp32", "auto"):
        config = tiny_config({"train.precision": wanted})
        assert settle(config, tiny, 1).precision == resolve(wanted)


def test_the_measurement_knows_the_precision(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainConfig] = []

    def choose(config: TrainConfig, data: Splits, threads: int) -> TrunkCacheChoice:
        seen.append(config)
        return TrunkCacheChoice(2, "why", (3.0, 2.0, 1.5))

    monkeypatch.setattr(auto, "choose_trunk_cache", choose)
    monkeypatch.setattr(auto, "resolve", lambda wanted: "bf16")
    resolved = settle(tiny_config({"train.precision": "auto"}), tiny, 1)
    assert resolved == Settled("bf16", 2, "why", (3.0, 2.0, 1.5))
    assert seen[0].train.precision == "bf16"


@pytest.mark.parametrize("value", [0, 2, "off"])
def test_it_is_recorded_explained_once_and_read_again(
    make_search: Make, tiny: Splits, capsys: pytest.CaptureFixture[str], value: int | str
) -> None:
    config = make_search({"train.precision": "auto", "train.trunk_cache": "auto"})
    study = open_search(config, [], tiny)
    assert not is_resolved(study)
    record_resolved(study, Settled("bf16", value, "a line that says why"), Lines(Console()))
    assert capsys.readouterr().out == "a line that says why\n"
    again = open_search(config, [], tiny)
    assert is_resolved(again)
    train = resolved_config(config, again).train
    assert (train.precision, train.trunk_cache) == ("bf16", value)
