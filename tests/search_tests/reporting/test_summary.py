"""What the commands print."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.ranking.costs import Costs
from search.ranking.gain import describe_gain
from search.ranking.results import SearchResult, rank, winner
from search.reporting import summary
from search.reporting.report import page, read_result, verdict
from search.space.space import read_space
from search.study.opening import open_search
from search.study.reading import read_search
from search.study.study import End, Study
from trainer.config import BadInput
from trainer.data.dataset import Splits

from ..conftest import SPACE, Trained

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def begun(make_search: Make, make_reports: Make, tiny: Splits) -> Study:
    """A search of which one trial finished and one runs."""
    config = make_search({"space": SPACE})
    study = open_search(config, read_space(SPACE), tiny)
    study.set("state", "running")
    for _ in range(2):
        study.ask(read_space(SPACE), config)
    for report in make_reports([0.1] * 9 + [0.25]):
        study.record(0, report)
    study.end(0, End.FINISHED)
    return study


def test_a_winner_is_printed_with_its_figures_and_what_is_next(
    trained: Trained, capsys: Captured
) -> None:
    summary.print_result(trained.result)
    out = capsys.readouterr().out
    assert re.search(r"1 trial; 2 epochs trained in \d\.\d\d CPU-hours, 0 forked\n", out)
    assert "Winner: trial #0 as written" in out
    figure = trained.result.metrics["val"]["figures"]["map"]
    assert f"{figure:.3f}" in out
    assert "unfreeze predict once PICTURES --out predicted" in out


def test_a_trial_that_went_on_elsewhere_is_shown_as_such(
    begun: Study, make_search: Make, make_reports: Make, capsys: Captured
) -> None:
    for report in make_reports([0.1, 0.2]):
        begun.record(1, replace(report, environment={"torch": f"2.{report.epoch}"}))
    config = make_search({"space": SPACE})
    summary.print_status(config.storage, config.name)
    summary.print_result(read_result(config, begun))
    out = capsys.readouterr().out
    assert out.count("Trial #1 went on from epoch 2 on with torch 2.2 (2.1 before)") == 2
    assert "Trial #0 went on" not in out
    assert "went on from epoch 2 on with torch 2.2" in page(read_result(config, begun), begun)


def test_without_a_winner_each_trials_reason_is_printed(
    make_search: Make, make_record: Make, capsys: Captured
) -> None:
    config = make_search()
    records = [make_record(0, [], end=End.ERROR), make_record(1, [], end=End.OUT_OF_MEMORY)]
    records[0].text = "Traceback\n  ...\nKeyError: 'x'"
    rows = rank(config, records)
    result = SearchResult(
        config, [], rows, winner(rows), {}, Costs(2, 0, 0, 0, 0, 0.0, 0.0, False, 0.0, 0.0), "done"
    )
    summary.print_result(result)
    out = capsys.readouterr().out
    assert "No trial came to a result:" in out
    assert "trial 0: error: KeyError: 'x'" in out
    assert "trial 1: out of memory" in out


@pytest.mark.parametrize("counts_kept", [False, True])
def test_an_interrupted_search_says_how_to_go_on(
    make_search: Make, make_record: Make, capsys: Captured, counts_kept: bool
) -> None:
    config = make_search()
    rows = rank(config, [make_record(0, [0.1, 0.2])])
    costs = Costs(1, 2, 0, 0, 600, 4.0, 9.0, counts_kept, 0.0, 0.0)
    result = SearchResult(config, [], rows, winner(rows), {}, costs, "interrupted")
    summary.print_result(result)
    out = " ".join(capsys.readouterr().out.split())
    assert "Interrupted. The same line again continues." in out
    assert "frozen stages read from files for 600 pictures, not run again" in out
    what = "forks, stops and kept outputs" if counts_kept else "forks and stops"
    assert f"training took 4 s of trials' time; without {what} about 9 s" in out


def test_a_list_of_nothing_says_so(capsys: Captured) -> None:
    summary.print_list(Path("searches"))
    assert capsys.readouterr().out == f"no searches in {Path('searches').absolute()}\n"


def test_a_list_has_a_line_a_search(trained: Trained, capsys: Captured) -> None:
    summary.print_list(trained.config.storage)
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
def test_a_damaged_search_hides_no_other_from_the_list(
    begun: Study, capsys: Captured, monkeypatch: pytest.MonkeyPatch, file: str, content: str
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    shutil.copytree("searches/tiny", "searches/bad")
    Path("searches/bad", file).write_text(content)
    summary.print_list(Path("searches"))
    out = capsys.readouterr().out
    assert re.search(r"^tiny +interrupted +1 of 6 +0\.250", out, re.MULTILINE)
    assert re.search(rf"^bad +\S*searches/bad/{file} is damaged", out, re.MULTILINE)


def test_a_list_gives_the_mean_of_a_confirmed_winner(
    begun: Study, make_reports: Make, capsys: Captured
) -> None:
    config = read_search("tiny", Path("searches"))
    space = read_space(SPACE)
    begun.end(1, End.DIVERGED)
    begun.enqueue(begun.records[0].parameters, "confirms #0", confirms=0, seed=1)
    number, _ = begun.ask(space, config)
    for report in make_reports([0.1] * 9 + [0.35]):
        begun.record(number, report)
    begun.end(number, End.FINISHED)
    summary.print_list(Path("searches"))
    assert "3 of 7  0.350" in capsys.readouterr().out  # and 0.250 is the run that chose it


def test_a_gain_is_printed_as_the_report_tells_it(
    trained: Trained, make_record: Make, capsys: Captured
) -> None:
    config = trained.config
    records = [
        make_record(0, [0.1, 0.3], origin="as written", end=End.FINISHED),
        make_record(1, [0.1, 0.4], parameters={"n": 1}, end=End.FINISHED),
    ]
    rows = rank(config, records)
    result = replace(trained.result, rows=rows, winner=winner(rows))
    summary.print_result(result)
    out = " ".join(capsys.readouterr().out.split())
    line = describe_gain(config, rows, rows[0])
    assert "came to 0.400 val AP and the configuration as written to 0.300" in line
    assert line in out and line in verdict(result)


def test_a_stopped_trial_that_was_better_is_not_compared_unless_it_ran_again(
    trained: Trained, make_search: Make, make_record: Make, capsys: Captured
) -> None:
    config = make_search()
    records = [
        make_record(0, [0.1, 0.5], origin="as written", end=End.PRUNED),
        make_record(1, [0.1] + [0.4] * 9, parameters={"n": 1}, end=End.FINISHED),
    ]
    for fresh in ([], [(0, 0.3), (1, 0.4)]):
        for number, value in fresh:
            record = make_record(2 + number, [0.1] + [value] * 9, end=End.FINISHED)
            record.confirms, record.seed = number, 1
            records.append(record)
        rows = rank(config, records)
        result = replace(trained.result, config=config, rows=rows, winner=winner(rows))
        summary.print_result(result)
        out = " ".join(capsys.readouterr().out.split())
        assert ("Trial #0 had 0.500, but ran fewer epochs" in out) is not bool(fresh)


def test_the_state_of_a_killed_search_is_interrupted(begun: Study, capsys: Captured) -> None:
    summary.print_list(Path("searches"))
    assert "tiny  interrupted  1 of 6  0.250" in capsys.readouterr().out
    summary.print_status(Path("searches"), "tiny")
    out = capsys.readouterr().out
    assert out.startswith("tiny: interrupted, tracking sqlite:///")
    assert "#0 as written" in out and "finished" in out
    assert "1 of 6 trials ended, 0 interrupted" in out
    assert "10 epochs trained in 0.01 CPU-hours, 0 forked\n" in out


def test_the_status_of_an_unknown_search_is_refused() -> None:
    with pytest.raises(BadInput, match="no search nope in searches; there: none"):
        summary.print_status(Path("searches"), "nope")


def test_figures_with_all_detections_stand_beside_cocos(capsys: Captured) -> None:
    more = {"map": 0.7, "mar_300": 0.8}
    figures = {"figures": {"map": 0.5}, "per_class": {"red": 0.5}, "detections": 300}
    summary.print_metrics("val", {**figures, "at_detections": more})
    assert capsys.readouterr().out.split("\n")[1:-1] == [
        "AP                 0.5000",
        "AP, 300 a picture  0.7000",
        "AR, 300 a picture  0.8000",
        "AP red             0.5000",
    ]


def test_figures_that_cannot_be_measured_are_dashes(capsys: Captured) -> None:
    figures = {"map": 0.12345, "map_large": None}
    summary.print_metrics("val", {"figures": figures, "per_class": {"red": 0.5, "blue": None}})
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert out == [
        ["On", "val:"],
        ["AP", "0.1235"],
        ["AP", "(large", "boxes)", "-"],
        ["AP", "red", "0.5000"],
        ["AP", "blue", "-"],
    ]
