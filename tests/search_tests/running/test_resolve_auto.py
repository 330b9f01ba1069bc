"""What `auto` resolves to: measured once, kept in the study."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from search.reporting.progress import Count, Lines, Quiet
from search.running import resolve_auto as auto
from search.running.resolve_auto import (
    ResolvedAuto,
    is_resolved,
    record_resolved,
    resolve_auto,
    resolve_here,
    resolve_on_worker,
    resolved_config,
)
from search.space.config import TrialResources
from search.study.start_or_resume import open_search
from trainer.config import TrainConfig
from trainer.data.dataset import Splits
from trainer.precision import resolve_precision
from trainer.training.probe import FeatureCacheChoice

Make = Callable[..., Any]


def test_precision_is_resolved_where_it_runs(tiny: Splits, tiny_config: Make) -> None:
    for wanted in ("fp32", "auto"):
        config = tiny_config({"train.precision": wanted})
        assert resolve_auto(config, tiny, 1).precision == resolve_precision(wanted)


def test_the_measurement_knows_the_precision(
    tiny: Splits, tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainConfig] = []

    def choose(config: TrainConfig, data: Splits, threads: int) -> FeatureCacheChoice:
        seen.append(config)
        return FeatureCacheChoice(2, "why", (3.0, 2.0, 1.5))

    monkeypatch.setattr(auto, "choose_cache_depth", choose)
    monkeypatch.setattr(auto, "resolve_precision", lambda wanted: "bf16")
    resolved = resolve_auto(tiny_config({"train.precision": "auto"}), tiny, 1)
    assert resolved == ResolvedAuto("bf16", 2, "why", (3.0, 2.0, 1.5))
    assert seen[0].train.precision == "bf16"


@pytest.mark.parametrize("value", [0, 2, "off"])
def test_it_is_recorded_explained_once_and_read_again(
    make_search: Make, tiny: Splits, capsys: pytest.CaptureFixture[str], value: int | str
) -> None:
    config = make_search({"train.precision": "auto", "train.trunk_cache": "auto"})
    study = open_search(config, [], tiny)
    assert not is_resolved(study)
    record_resolved(study, ResolvedAuto("bf16", value, "a line that says why"), Lines(Console()))
    assert capsys.readouterr().out == "a line that says why\n"
    again = open_search(config, [], tiny)
    assert is_resolved(again)
    train = resolved_config(config, again).train
    assert (train.precision, train.trunk_cache) == ("bf16", value)


class Steps(Quiet):
    """What the user reads and what is measured, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def say(self, line: str) -> None:
        self.seen.append(line)

    def step(self, text: str) -> AbstractContextManager[Count]:
        self.seen.append(text)
        return super().step(text)

    def settle(self, *_: Any) -> ResolvedAuto:
        self.seen.append("measured")
        return ResolvedAuto("fp32", "off", "why")


class OneWorker:
    """Ray with one worker: this process."""

    def remote(self, max_calls: int) -> Callable[..., Any]:
        def wrap(call: Callable[..., Any]) -> SimpleNamespace:
            return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=call))

        return wrap

    def get(self, answer: Any) -> Any:
        return answer


@pytest.mark.parametrize("on_worker", [False, True])
@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("auto", "measuring how much faster cached features"),
        (2, "measuring how much disk space cached features"),
        ("off", "choosing the precision"),
    ],
)
def test_the_user_hears_what_will_be_measured(
    make_search: Make,
    tiny: Splits,
    monkeypatch: pytest.MonkeyPatch,
    setting: int | str,
    line: str,
    on_worker: bool,
) -> None:
    steps = Steps()
    monkeypatch.setattr(auto, "resolve_auto", steps.settle)
    monkeypatch.setattr(auto, "ray", OneWorker())
    config = make_search({"train.trunk_cache": setting})
    study = open_search(config, [], tiny)
    for _ in range(2):  # the second time, the study has it
        if on_worker:
            resolve_on_worker(config, tiny, TrialResources(), study, steps)
        else:
            resolve_here(config, tiny, 1, study, steps)
    announced, measured, why = steps.seen
    assert (measured, why) == ("measured", "why")
    assert announced.startswith(line)
