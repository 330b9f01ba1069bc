"""`unfreeze search` and `unfreeze train` on the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.commands.cli import main
from search.study.lock import locked

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]
QUICK = ["--set", "train.precision=fp32", "--set", "train.trunk_cache=off"]
"""Settings that a search would measure at its start."""


def tree() -> list[tuple[str, bytes]]:
    return sorted((str(f), f.read_bytes()) for f in Path().rglob("*") if f.is_file())


def test_every_error_of_a_file_is_printed(write_search: Make, capsys: Captured) -> None:
    write_search({"search.trials": 0, "train.head.lr": 100, "modle": {}})
    assert main(["search", "tiny.yaml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_dry_run_writes_nothing(write_search: Make, capsys: Captured) -> None:
    write_search()
    before = tree()
    assert main(["search", "tiny.yaml", "--dry-run", "--trials", "3", "--cluster", "auto"]) == 0
    out = capsys.readouterr().out
    assert "3 trials" in out and "cluster: auto" in out
    assert tree() == before


def test_the_default_needs_no_file(capsys: Captured) -> None:
    assert main(["search", "--dry-run", *QUICK]) == 0
    assert "name: digits" in capsys.readouterr().out


def test_a_file_whose_space_gives_a_field_its_effect_can_be_trained(
    write_search: Make, capsys: Captured
) -> None:
    write_search(
        {
            "tracking": "off",
            "train.unfreeze.schedule": "at_once",  # alone, it would make open_epochs an error
            "train.unfreeze.epochs": 1,
            "train.head": {"epochs": 0},
            "space": {"train.unfreeze.schedule": {"choice": ["gradual", "at_once"]}},
        }
    )
    assert main(["train", "tiny.yaml"]) == 0
    assert "Winner: trial #0 baseline" in capsys.readouterr().out


def test_a_space_that_the_training_ignores_refuses_nothing(
    write_search: Make, capsys: Captured
) -> None:
    write_search(
        {
            "tracking": "off",
            "train.unfreeze.schedule": "at_once",
            "train.unfreeze.epochs": 1,
            "train.unfreeze.open_epochs": 2,  # only `gradual` would need so many epochs
            "train.head": {"epochs": 0},
            "space": {
                "train.unfreeze.schedule": {"choice": ["gradual", "at_once"]},
                "train.unfreeze.lr": {"log": [0.5, 0.9]},  # the value in the file lies outside
            },
            "search.first": [{"train.unfreeze.lr": 0.6}],
        }
    )
    assert main(["search", "tiny.yaml", "--dry-run"]) == 2
    assert "open_epochs: 2 is more than" in capsys.readouterr().err
    assert main(["train", "tiny.yaml"]) == 0
    assert "Winner: trial #0 baseline" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_is_1_and_nothing_is_written(
    write_search: Make, capsys: Captured
) -> None:
    write_search()
    before = tree()
    assert main(["search", "tiny.yaml", "--cluster", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("cluster: 127.0.0.1:1: ")
    assert tree() == before and not Path("searches").exists()


def test_a_training_that_another_process_runs_is_1(write_search: Make, capsys: Captured) -> None:
    write_search()
    with locked(Path("searches/tiny")):
        assert main(["train", "tiny.yaml"]) == 1
    assert "tiny is being run by process" in capsys.readouterr().err
