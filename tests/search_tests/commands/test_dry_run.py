"""What `--dry-run` says would run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.commands.dry_run import print_plan
from search.running.auto import Settled
from trainer.training.probe import Timing

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]
HEAD_RATES = ("train.head.lr", "train.head.weight_decay")


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans whose epochs are not timed here: the tests of the commands do that."""
    monkeypatch.setattr("search.commands.dry_run.settle", lambda *_: Settled("fp32", "off", ""))
    monkeypatch.setattr("search.commands.dry_run.time_epochs", lambda *_: Timing(1.0, 2.0))


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {},
            ["6 trials", "head phases trained: 1", "ASHA compares at unfreeze epochs: 1, 3"],
        ),
        ({"search.asha": "off"}, ["epochs: at most 55, about 55"]),
        (
            {"space": {"train.head.lr": {"log": [1e-4, 1e-2]}}},
            ["head phases trained: at most 6, since train.head.lr varies", "epochs: at most 60, "],
        ),
        (
            {"space": dict.fromkeys(HEAD_RATES, {"log": [1e-4, 1e-2]})},
            [f"head phases trained: at most 6, since {', '.join(HEAD_RATES)} vary"],
        ),
        (
            {"search.confirm": {"top": 2, "seeds": 2}},  # a head and three trials a seed
            ["then the best 2 and the one as written again with 2 other seeds: at most 56 epochs"],
        ),
        (
            {"search.confirm": {"top": 9, "seeds": 1}},  # there are six
            ["the one as written again with 1 other seed: at most 55 epochs"],
        ),
        ({"train.head": {"epochs": 0}}, ["head phases trained: 0", "epochs: at most 54, "]),
    ],
)
def test_a_plan_says_what_would_run(
    make_search: Make, capsys: Captured, changes: dict[str, Any], lines: list[str]
) -> None:
    print_plan(make_search(changes))
    out = " ".join(capsys.readouterr().out.split())
    assert "name: tiny" in out
    for line in lines:
        assert line in out
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("untimed")
def test_a_head_that_varies_within_a_branch_is_counted_too(
    make_search: Make, capsys: Captured
) -> None:
    schedules = {"gradual": {"train.head.lr": {"log": [1e-4, 1e-2]}}, "at_once": None}
    print_plan(make_search({"space": {"train.unfreeze.schedule": {"choice": schedules}}}))
    assert "head phases trained: at most 6" in capsys.readouterr().out


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    "name", ["train.augment", "train.warmup_epochs", "train.clip_norm", "train.momentum"]
)
def test_what_else_the_head_depends_on_is_counted_too(
    make_search: Make, capsys: Captured, name: str
) -> None:
    spec: Any = {"choice": ["flip", "none"]} if name == "train.augment" else {"uniform": [0.5, 0.6]}
    written = {"train.clip_norm": 0.5, "train.momentum": 0.5}
    changes = {name: written[name]} if name in written else {}
    if name == "train.momentum":
        changes["train.optimizer"] = "sgd"
    print_plan(make_search({**changes, "space": {name: spec}}))
    assert "head phases trained: at most " in capsys.readouterr().out
