"""The report: what it says, what it leaves out, and that it needs nothing but itself."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from search.ranking.gain import describe_gain
from search.reporting import charts
from search.reporting.report import (
    _about,
    _figures,
    _table,
    page,
    read_result,
    verdict,
    write_report,
)
from search.space.space import read_space
from search.study.study import End, Study, open_study
from trainer.config import Model

from ..conftest import SPACE, MadeUp, Trained

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def html(made_up: MadeUp) -> str:
    return page(read_result(made_up.config, made_up.study), made_up.study)


def without_scripts(html: str) -> str:
    return re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)


def test_the_verdict_says_what_won_by_how_much_and_whether_to_believe_it(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    assert result.winner is not None
    won, val, test, gain, epochs = verdict(result)
    assert won.startswith(f"Trial #{result.winner.record.number} won: depth ")
    assert val == "Measured from its export, its val AP is 0.500."
    assert "it is 0.470: 0.030 below val; test was looked at once" in test
    assert gain == describe_gain(result.config, result.rows, result.winner)
    assert "cannot be told from luck" in gain  # the one as written has no fresh run
    assert epochs.startswith("Its 11 trials trained ") and " not run, since ASHA" in epochs


def test_a_winner_that_ran_once_is_told_as_such(make_search: Make, make_reports: Make) -> None:
    study = small(make_search, make_reports, [[0.1, 0.3], [0.1, 0.4]])
    result = read_result(make_search({"space": SPACE}), study)
    assert "leads so far" in verdict(result)[0]
    assert "cannot be told from luck; search.confirm trains both" in " ".join(verdict(result))


def test_a_test_split_that_was_looked_at_often_flatters(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    test = result.metrics["test"]
    often = {"test": test | {"figures": test["figures"] | {"map": 0.53}, "looks": 3}}
    told = verdict(replace(result, metrics=result.metrics | often))
    assert told[2] == (
        "On test, which had no say in the choice, it is 0.530: 0.030 above val; test was looked at "
        "3 times: it flatters by now."
    )


def test_without_an_export_the_figure_of_training_is_told(made_up: MadeUp) -> None:
    result = replace(read_result(made_up.config, made_up.study), metrics={})
    assert result.winner is not None and result.winner.map is not None
    first, second, *_ = verdict(result)
    assert "leads so far" in first
    assert second == f"Its best val AP during training is {result.winner.map:.3f}."


def test_figures_of_all_detections_stand_below_cocos(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    more = {"detections": 300, "at_detections": {"map": 0.52, "map_small": None}}
    figures = _figures(result.metrics | {"val": result.metrics["val"] | more})
    assert figures["heads"] == (
        "AP,AP50,AP75,AP small,AP medium,AP large,AR 1,AR 10,AR 100,AR small,AR medium,AR large"
    ).split(",")
    val, all_of_val, test = figures["rows"]
    assert val == ["val", *["0.500"] * 12]
    assert all_of_val == ["val, 300 boxes a picture", "0.520", *["-"] * 11]
    assert test == ["test", "0.470", *["0.500"] * 11]


def test_the_table_shows_what_it_is_sorted_by(made_up: MadeUp) -> None:
    result = read_result(made_up.config, made_up.study)
    table = _table(result)
    assert table["heads"] == (
        ["", "trial", "AP", "AP50", "fresh mean", "depth", "schedule", "lr"]
        + ["epochs", "min", "state"]
    )
    (first, is_winner), (again, _), *others = table["rows"]
    best = result.rows[0].record.best
    mean = result.rows[0].mean
    assert is_winner and not any(won for _, won in others) and best and mean
    assert first[0] == ("1", 1) and again[0] == ("", 1)  # the run that confirms it has its rank
    assert first[2] == (f"{best.map:.3f}", best.map) and first[4] == (f"{mean:.3f}", mean)
    assert again[4] == ("", -1)
    assert first[-3:] == [("9", 9), ("0.3", 18.0), ("finished", "finished")]  # one was forked
    assert again[-2] == ("0.3", 20.0)


def test_the_report_tells_when_on_what_and_for_how_much(made_up: MadeUp) -> None:
    config, study = made_up.config, made_up.study
    result = read_result(config, study)
    about = dict(_about(result, study))
    starts = [r.started for r in study.records.values() if r.started]
    ends = [r.ended for r in study.records.values() if r.ended]
    first, last = (
        datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %Z")
        for at in (min(starts), max(ends))
    )
    assert about["when"] == f"{first} to {last}"
    assert about["model"] == f"retinanet on {config.model.backbone}, weights none, 96 px, fp32"
    assert about["data"] == "digest " + "d" * 12
    assert about["a trial had"] == "-"
    for gpu_hours, told in ((0.0, "1.50 CPU-hours"), (2.0, "2.00 GPU-hours")):
        costs = replace(result.costs, cpu_hours=1.5, gpu_hours=gpu_hours)
        assert dict(_about(replace(result, costs=costs), study))["spent"] == told


def test_the_configuration_as_written_may_win(make_search: Make, make_reports: Make) -> None:
    study = small(make_search, make_reports, [[0.1, 0.5], [0.1, 0.4]])
    said = " ".join(verdict(read_result(make_search({"space": SPACE}), study)))
    assert "The configuration as written won: nothing that was tried beat it." in said


def test_a_search_that_was_cut_short_says_so(make_search: Make, make_reports: Make) -> None:
    study = small(make_search, make_reports, [[0.1, 0.5], [0.1, 0.4]])
    study.set("state", "stopped")
    result = read_result(make_search({"space": SPACE}), study)
    assert verdict(result)[0] == f"2 of {result.config.search.trials} trials have ended: stopped."


def test_a_trial_that_was_cut_short_beats_nothing(make_search: Make, make_reports: Make) -> None:
    study = small(make_search, make_reports, [[0.1, 0.5], []])
    said = " ".join(verdict(read_result(make_search({"space": SPACE}), study)))
    assert "no other trial was given as many epochs" in said and "beat" not in said


def test_a_detector_with_its_own_backbone_is_told_without_another(made_up: MadeUp) -> None:
    model = Model(detector="fcos_resnet50_fpn", weights="coco")
    config = made_up.config.model_copy(update={"model": model})
    result = replace(read_result(made_up.config, made_up.study), config=config)
    text = page(result, made_up.study)
    assert "fcos_resnet50_fpn, weights coco" in text


def test_figures_of_an_earlier_winner_are_not_shown(made_up: MadeUp, tmp_path: Path) -> None:
    result = read_result(made_up.config, made_up.study)
    assert result.metrics
    file = made_up.config.folder / "winner" / "metrics.json"
    before = file.read_text()
    try:
        file.write_text(before.replace('"epoch": 10', '"epoch": 9'))
        assert read_result(made_up.config, made_up.study).metrics == {}
    finally:
        file.write_text(before)


def small(make_search: Make, make_reports: Make, maps: list[list[float]]) -> Study:
    """A study of trials with these APs, the first as written."""
    study = open_study(Path("kept"), "tiny", trials=9)
    study.set("state", "done")
    written = {"train.unfreeze.lr": 1e-3, "train.unfreeze.depth": 2}
    study.enqueue({**written, "train.unfreeze.schedule": "gradual"}, "as written")
    for number, own in enumerate(maps):
        study.ask(read_space(SPACE), make_search({"space": SPACE}))
        for one in make_reports(own):
            study.record(number, one)
        study.end(number, End.FINISHED if own else End.LOST)
    return study


@pytest.mark.parametrize("maps", [[], [[]], [[0.1]], [[0.1, 0.2]], [[0.1, 0.2], [0.1, 0.2]]])
def test_few_trials_give_a_page_that_says_so(
    make_search: Make, make_reports: Make, maps: list[list[float]]
) -> None:
    study = small(make_search, make_reports, maps)
    text = page(read_result(make_search({"space": SPACE}), study), study)
    assert "could not be drawn" not in text
    assert "Importances need 8 comparable trials" in text
    assert "Every configuration ran once" in text


def test_one_trial_without_a_space_has_a_page(trained: Trained) -> None:
    text = (trained.config.folder / "report.html").read_text()
    assert "Trial #0 as written won." in text
    assert "could not be drawn" not in text
    assert text.count("data:image/jpeg;base64,") >= 2


def test_a_chart_that_fails_leaves_the_others(
    made_up: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("<b>no</b>")

    monkeypatch.setattr(charts, "seeds", fail)
    text = page(read_result(made_up.config, made_up.study), made_up.study)
    assert "It could not be drawn (RuntimeError: &lt;b&gt;no&lt;/b&gt;)." in text
    assert text.count("js-plotly-plot") or text.count("plotly-graph-div") >= 7


def test_names_and_errors_are_text_and_hold_no_password(html: str) -> None:
    assert "KeyError: &lt;script&gt;alert(1)&lt;/script&gt; at http://me:***@host/" in html
    assert "<script>alert(1)" not in html and "canary" not in html
    assert html.count("<script") == html.count("</script>")  # a class is named so


def test_nothing_on_the_page_is_fetched(html: str) -> None:
    left = without_scripts(html)
    assert not re.search(r"(?:src|href)=.(?!data:)", left)
    assert "@import" not in left and "url(" not in left
    assert "default-src 'none'" in left


def test_pictures_are_in_the_page_and_not_larger_than_they_are_shown(html: str) -> None:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    assert len(found) == 3
    assert all(len(base64.b64decode(one)) < 100_000 for one in found)


def test_the_same_study_gives_the_same_page(made_up: MadeUp, html: str) -> None:
    assert page(read_result(made_up.config, made_up.study), made_up.study) == html


def test_the_page_stands_in_the_searchs_folder(make_search: Make, make_reports: Make) -> None:
    study = small(make_search, make_reports, [[0.1, 0.2]])
    config = make_search({"space": SPACE})
    file = write_report(read_result(config, study), study)
    assert file == config.report
    assert file.read_text().startswith("<!doctype html>")


def test_a_trial_without_end_is_under_way_while_the_search_runs(
    make_search: Make, make_reports: Make
) -> None:
    study = small(make_search, make_reports, [[0.1, 0.2]])
    study.ask(read_space(SPACE), make_search({"space": SPACE}))
    result = read_result(make_search({"space": SPACE}), study)
    assert ">no epoch yet</td>" in page(replace(result, state="running"), study)
    study.record(1, make_reports([0.1])[0])
    for state, shown in (("running", "under way"), ("stopped", "interrupted")):
        result = replace(read_result(make_search({"space": SPACE}), study), state=state)
        assert f">{shown}</td>" in page(result, study)
