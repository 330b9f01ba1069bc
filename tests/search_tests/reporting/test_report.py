"""The report: what it says, what it leaves out, and that it needs nothing but itself."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.reporting import charts
from search.reporting.report import page, read_result, write_report
from search.space.space import read_space
from trainer.config import Model

from ..conftest import SPACE, MadeUp, Trained

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def html(made_up: MadeUp) -> str:
    return page(read_result(made_up.config, made_up.study), made_up.study)


def without_scripts(html: str) -> str:
    return re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)


def test_a_detector_that_has_a_backbone_is_named_without_another(made_up: MadeUp) -> None:
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


@pytest.mark.parametrize("maps", [[], [[]], [[0.1]], [[0.1, 0.2]], [[0.1, 0.2], [0.1, 0.2]]])
def test_few_trials_give_a_page_that_says_so(
    make_search: Make, make_study: Make, maps: list[list[float]]
) -> None:
    study = make_study(maps)
    text = page(read_result(make_search({"space": SPACE}), study), study)
    assert "could not be drawn" not in text
    assert "Importances need 8 comparable trials" in text
    assert "Every configuration ran once" in text


def test_one_trial_without_a_space_has_a_page(trained: Trained) -> None:
    text = (trained.config.folder / "report.html").read_text()
    assert "Trial #0 baseline won." in text
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
    assert html.count("<script") == html.count("</script>")  # a class has this name


def test_nothing_on_the_page_is_fetched(html: str) -> None:
    text = without_scripts(html)
    assert not re.search(r"(?:src|href)=.(?!data:)", text)
    assert "@import" not in text and "url(" not in text
    assert "default-src 'none'" in text


def test_pictures_are_in_the_page_and_not_larger_than_they_are_shown(html: str) -> None:
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    assert len(pictures) == 3
    assert all(len(base64.b64decode(one)) < 100_000 for one in pictures)


def test_the_same_study_gives_the_same_page(made_up: MadeUp, html: str) -> None:
    assert page(read_result(made_up.config, made_up.study), made_up.study) == html


def test_the_page_is_written_into_the_searchs_folder(make_search: Make, make_study: Make) -> None:
    study = make_study([[0.1, 0.2]])
    config = make_search({"space": SPACE})
    file = write_report(read_result(config, study), study)
    assert file == config.report
    assert file.read_text().startswith("<!doctype html>")


def test_a_trial_without_end_is_under_way_while_the_search_runs(
    make_search: Make, make_study: Make, make_reports: Make
) -> None:
    study = make_study([[0.1, 0.2]])
    study.ask(read_space(SPACE), make_search({"space": SPACE}))
    result = read_result(make_search({"space": SPACE}), study)
    assert ">no epoch yet</td>" in page(replace(result, state="running"), study)
    study.record(1, make_reports([0.1])[0])
    for state, shown in (("running", "under way"), ("stopped", "interrupted")):
        result = replace(read_result(make_search({"space": SPACE}), study), state=state)
        assert f">{shown}</td>" in page(result, study)
