"""What `list` and `status` print."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.reporting import status
from search.space.space import read_space
from search.study.reading import read_search_config
from search.study.record import End
from search.study.study import Study
from trainer.config import InputError

from ..conftest import SPACE, Trained

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]


def test_a_list_of_nothing_says_so(capsys: Captured) -> None:
    status.print_list(Path("searches"))
    assert capsys.readouterr().out == f"no searches in {Path('searches').absolute()}\n"


def test_a_list_has_a_line_per_search(trained: Trained, capsys: Captured) -> None:
    status.print_list(trained.config.storage)
    heads, line = capsys.readouterr().out.splitlines()
    assert heads.split() == ["name", "state", "trials", "best", "AP"]
    assert line.split()[:5] == ["once", "done", "1", "of", "1"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("search.yaml", ""),
        ("search.yaml", "name: ["),
        ("study.journal", ""),
        ("study.journal", "7\n"),
    ],
)
def test_a_list_with_a_damaged_search_still_has_the_others(
    begun: Study, capsys: Captured, file: str, content: str
) -> None:
    shutil.copytree("searches/tiny", "searches/bad")
    Path("searches/bad", file).write_text(content)
    status.print_list(Path("searches"))
    out = capsys.readouterr().out
    assert re.search(r"^tiny +interrupted +1 of 6 +0\.250", out, re.MULTILINE)
    assert re.search(rf"^bad: \S*searches/bad/{file} is damaged", out, re.MULTILINE)
    status.print_list(Path("searches"), as_json=True)
    bad, good = json.loads(capsys.readouterr().out)["searches"][::-1]
    assert (good["name"], bad["name"]) == ("tiny", "bad")
    assert f"searches/bad/{file} is damaged" in bad["error"]


def test_a_list_gives_the_mean_of_a_confirmed_winner(
    begun: Study, make_reports: Make, capsys: Captured
) -> None:
    config = read_search_config("tiny", Path("searches"))
    space = read_space(SPACE)
    begun.end(1, End.DIVERGED)
    begun.enqueue(begun.records[0].parameters, "confirms #0", confirms=0, seed=1)
    number, _ = begun.ask(space, config)
    for report in make_reports([0.1] * 9 + [0.35]):
        begun.record(number, report)
    begun.end(number, End.FINISHED)
    status.print_list(Path("searches"))
    assert "3 of 7  0.350" in capsys.readouterr().out  # 0.250 is the run that it was chosen by


def test_the_state_of_a_killed_search_is_interrupted(begun: Study, capsys: Captured) -> None:
    status.print_list(Path("searches"))
    assert "tiny  interrupted  1 of 6  0.250" in capsys.readouterr().out
    status.print_status(Path("searches"), "tiny")
    out = capsys.readouterr().out
    assert out.startswith("tiny: interrupted\ntracking sqlite:///")
    assert "#0 baseline" in out and "finished" in out
    assert "1 of 6 trials ended, 0 interrupted" in out
    assert "10 epochs trained in 0.01 CPU-hours, 0 forked\n" in out


def test_the_list_as_json(begun: Study, capsys: Captured) -> None:
    status.print_list(Path("searches"), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "storage": str(Path("searches").absolute()),
        "searches": [
            {
                "name": "tiny",
                "state": "interrupted",
                "trials": 6,
                "ended": 1,
                "best": 0,
                "map": 0.25,
                "mean_map": None,
            }
        ],
    }


def test_the_status_as_json(begun: Study, make_reports: Make, capsys: Captured) -> None:
    begun.record(1, make_reports([0.1])[0])
    begun.end(1, End.ERROR, "Traceback\nValueError: token=canary")
    status.print_status(Path("searches"), "tiny", as_json=True)
    printed = capsys.readouterr().out
    content = json.loads(printed)
    assert (content["name"], content["state"], content["ended"]) == ("tiny", "interrupted", 2)
    assert content["folder"] == str(Path("searches/tiny").resolve())
    assert content["tracking"].startswith("sqlite:///")
    best, failed = content["ranking"]
    assert (best["trial"], best["rank"], best["state"], best["map"]) == (0, 1, "finished", 0.25)
    assert (best["epoch"], best["epochs"], best["origin"]) == (10, 10, "as written")
    assert best["values"].keys() == SPACE.keys()
    assert failed["error"] == "ValueError: token=***" and "canary" not in printed
    assert content["costs"]["epochs_run"] == 11


@pytest.mark.usefixtures("narrow")
def test_a_long_name_stays_in_one_piece_on_a_terminal(begun: Study, capsys: Captured) -> None:
    status.print_list(Path("searches"))
    assert "tiny  interrupted  1 of 6  0.250" in capsys.readouterr().out
    name = "n" * 100
    Path("searches/tiny").rename(Path("searches", name))
    status.print_list(Path("searches"))
    assert capsys.readouterr().out == f"{name}\n  interrupted, 1 of 6 trials, best AP 0.250\n"


def test_the_status_of_an_unknown_search_is_refused() -> None:
    with pytest.raises(InputError, match="no search nope in searches; its searches: none"):
        status.print_status(Path("searches"), "nope")
