"""The report and MLflow's pages in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.tracking import MlflowClient

from search.reporting.report import read_result, write_report
from search.tracking.description import Description
from search.tracking.tracking import MlflowTracking
from search.tracking.ui import HOST, RUNS, server_command, server_environment

from .conftest import MadeUp, free_port, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.is_file(), reason="needs Debian's chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with sync_api.sync_playwright() as playwright:
        # no sandbox: with it Chromium does not start as root; it opens our pages alone
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.close()


# -- the report -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(made_up: MadeUp) -> str:
    return write_report(read_result(made_up.config, made_up.study), made_up.study).as_uri()


def test_the_report_draws_and_fetches_nothing(page: "Page", report: str) -> None:
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(report)
    charts = page.locator(".js-plotly-plot")
    assert charts.count() == 8  # a ninth has a sentence: no two trials differ in depth
    for i in range(charts.count()):
        assert charts.nth(i).locator(".main-svg").count() > 0
        assert charts.nth(i).locator("path").count() > 0
    loaded = "[...document.images].map(picture => picture.naturalWidth > 0)"
    assert page.evaluate(loaded) == [True] * 3
    assert wrong == []
    assert [url for url in asked if not url.startswith("data:")] == [report]


@pytest.mark.parametrize("width", [1400, 800, 400])
def test_the_report_is_no_wider_than_the_window(page: "Page", report: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_heading_sorts_the_table(page: "Page", report: str) -> None:
    page.goto(report)

    def shown(column: int) -> list[str]:
        cells = page.locator(f".trials tbody td:nth-child({column})")
        return cells.all_inner_texts()

    heads = page.locator(".trials th").all_inner_texts()
    before, column = shown(2), heads.index("AP") + 1
    for way, reverse in (("ascending", False), ("descending", True)):
        page.locator(".trials th button").nth(column - 1).click()
        assert shown(column) == sorted(shown(column), key=float, reverse=reverse)
        assert page.locator(f".trials th[aria-sort={way}]").all_inner_texts() == ["AP"]
    page.locator(".trials th button").nth(1).click()
    numbers = [int(re.findall(r"\d+", text)[0]) for text in shown(2)]
    assert numbers == list(range(11)) and before != shown(2)


# -- MLflow ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the search's page, served as `unfreeze ui` does."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('ui') / 'mlflow.db'}"
    description = Description(
        status="FINISHED", params={}, tags={}, metrics={"best_map": 0.5}, texts={"table.md": "|"}
    )
    name, folder = made_up.config.name, made_up.config.folder
    assert MlflowTracking(uri, made_up.study, name, folder, lambda: description).close(120)
    experiment = MlflowClient(uri).get_experiment_by_name(name)
    assert experiment is not None
    port = free_port()
    address = f"http://{HOST}:{port}"
    with serving(server_command(port), f"{address}/health", server_environment(uri)):
        yield f"{address}/#/experiments/{experiment.experiment_id}/{RUNS}"


def test_mlflow_shows_trials_below_their_search(page: "Page", pages: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages.partition("&")[0])  # unsorted
    search = page.get_by_role("link", name="made-up", exact=True).last
    search.wait_for()
    trial = page.get_by_role("link", name=re.compile(r"#00 depth 2 lr 1e-3 \(baseline\)"))
    assert trial.count() == 0
    page.get_by_role("gridcell").filter(has=search).get_by_role("button").click()
    trial.wait_for()
    server = pages.partition("/#")[0]
    assert [url for url in asked if not url.startswith((server, "data:", "blob:"))] == []


def test_mlflow_shows_the_best_first(page: "Page", pages: str, made_up: MadeUp) -> None:
    page.goto(pages)
    names = page.get_by_role("link", name=re.compile(r"^#\d\d "))

    def top(link: "Locator") -> float:
        box = link.bounding_box()
        assert box is not None
        return box["y"]

    def shown() -> list[float]:
        """The APs from top to bottom; the page's source has another order."""
        links = sorted(names.all(), key=top)
        records = [made_up.study.records[int(link.inner_text()[1:3])] for link in links]
        return [record.best.map for record in records if record.best]

    for _ in range(100):
        maps = shown()
        if len(maps) == 11 and maps == sorted(maps, reverse=True):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never sorted: {maps}")


def test_mlflow_opens_a_trials_picture(page: "Page", pages: str, made_up: MadeUp) -> None:
    page.goto(pages)
    reviewed = [p.parent.name for p in made_up.config.folder.glob("trials/*/review")]
    page.get_by_role("link", name=re.compile(f"^#{int(reviewed[0]):02} ")).click()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("predictions.jpg").first.click()
    picture = page.locator("img[src^=blob]").first
    picture.wait_for()
    assert picture.evaluate("picture => picture.naturalWidth") == 1400
