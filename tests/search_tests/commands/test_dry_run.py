"""The plan that `unfreeze search --dry-run` prints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.commands.dry_run import head_dimensions, print_plan
from search.running.resolve_auto import ResolvedAuto
from search.space.space import read_space
from trainer.training.probe import Timing

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]
HEAD_RATES = ("train.head.lr", "train.head.weight_decay")


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans whose epochs are not timed: the tests of the commands do that."""
    monkeypatch.setattr(
        "search.commands.dry_run.resolve_auto", lambda *_: ResolvedAuto("fp32", "off", "")
    )
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
            {"space": {name: {"log": [1e-4, 1e-2]} for name in HEAD_RATES}},
            [f"head phases trained: at most 6, since {', '.join(HEAD_RATES)} vary"],
        ),
        (
            {"search.confirm": {"top": 2, "seeds": 2}},  # a head and three trials a seed
            ["then the best 2 and the baseline again with 2 other seeds: at most 56 epochs"],
        ),
        (
            {"search.confirm": {"top": 9, "seeds": 1}},  # there are six
            ["the baseline again with 1 other seed: at most 55 epochs"],
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
def test_a_plan_as_json(make_search: Make, capsys: Captured) -> None:
    print_plan(make_search({"space": {"train.head.lr": {"log": [1e-4, 1e-2]}}}), as_json=True)
    content = json.loads(capsys.readouterr().out)
    assert (content["config"]["name"], content["trials"]) == ("tiny", 6)
    assert content["plan"] == {
        "heads": 6,
        "head_dimensions": ["train.head.lr"],
        "asha_epochs": [1, 3],
        "confirming_epochs": 0,
        "epochs": 60,
    }
    estimate = content["estimate"]
    assert (estimate["head_seconds"], estimate["unfrozen_seconds"]) == (1.0, 2.0)
    assert 0 < estimate["epochs"] <= 60 and 0 < estimate["seconds"] <= 120


@pytest.mark.usefixtures("untimed")
def test_a_head_that_varies_within_a_branch_is_counted(make_search: Make, capsys: Captured) -> None:
    schedules = {"gradual": {"train.head.lr": {"log": [1e-4, 1e-2]}}, "at_once": None}
    print_plan(make_search({"space": {"train.unfreeze.schedule": {"choice": schedules}}}))
    assert "head phases trained: at most 6" in capsys.readouterr().out


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize(
    "name", ["train.augment", "train.warmup_epochs", "train.clip_norm", "train.momentum"]
)
def test_every_field_that_the_head_depends_on_is_counted(
    make_search: Make, capsys: Captured, name: str
) -> None:
    spec: Any = {"choice": ["flip", "none"]} if name == "train.augment" else {"uniform": [0.5, 0.6]}
    values = {"train.clip_norm": 0.5, "train.momentum": 0.5}
    changes: dict[str, Any] = {name: values[name]} if name in values else {}
    if name == "train.momentum":
        changes["train.optimizer"] = "sgd"
    print_plan(make_search({**changes, "space": {name: spec}}))
    assert "head phases trained: at most " in capsys.readouterr().out


def test_the_head_depends_on_what_its_cached_phase_depends_on(make_search: Make) -> None:
    """Each dimension below is one of the space; the head phase is trained again for some."""
    spec: dict[str, Any] = {
        "model.backbone": {"choice": ["resnet18", "resnet50"]},
        "train.head.batch_size": {"choice": [4, 8]},
        "train.head.epochs": {"int": [1, 2]},
        "train.head.lr": {"log": "auto"},
        "train.optimizer": {"choice": ["adamw", "sgd"]},
    }
    shared = {
        "train.unfreeze.batch_norm": {"choice": ["freeze", "adapt"]},
        "train.unfreeze.depth": {"int": [0, "all"]},
        "train.unfreeze.drop_path": {"uniform": [0.0, 0.3]},
        "train.unfreeze.lr": {"log": "auto"},
        "train.unfreeze.open_epochs": {"int": [1, 3]},
        "train.unfreeze.schedule": {"choice": ["gradual", "at_once"]},
    }
    space = read_space(spec | shared)
    assert set(head_dimensions(make_search(), space)) == spec.keys()
    assert head_dimensions(make_search({"train.head": {"epochs": 0}}), space) == []
