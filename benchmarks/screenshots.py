"""Take README's pictures of a search's report and of its runs in MLflow: docs/*.png.

    python benchmarks/screenshots.py NAME

Run it where the search NAME was started: its folder is searches/NAME, its store mlflow.db. It needs
Debian's chromium. The last line is the sizes of the pictures as one JSON object.
"""

import argparse
import io
import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

from mlflow.tracking import MlflowClient
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from search.space.locations import tracking_uri
from search.tracking.ui import HOST, RUNS, server_command, server_environment

DOCS = Path(__file__).parents[1] / "docs"
PORT = 5099


def main() -> None:
    """Take the pictures of the search that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="of a finished search in this folder")
    take_pictures(parser.parse_args().name)


def take_pictures(name: str) -> None:
    """Write docs/report.png and docs/mlflow.png of a search."""
    uri = tracking_uri(None)
    experiment = MlflowClient(uri).get_experiment_by_name(name)
    assert experiment is not None, f"no search {name} in {uri}"
    address = f"http://{HOST}:{PORT}"
    server = subprocess.Popen(
        server_command(PORT),
        env=server_environment(uri),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1100, "height": 1500})
            page.goto(Path("searches", name, "report.html").resolve().as_uri())
            keep(page, "report.png")
            wait_for(f"{address}/health")
            page.set_viewport_size({"width": 1240, "height": 660})
            page.goto(f"{address}/#/experiments/{experiment.experiment_id}/{RUNS}")
            show_runs(page)
            keep(page, "mlflow.png")
            browser.close()
    finally:
        server.terminate()
    sizes = {file.name: file.stat().st_size for file in sorted(DOCS.glob("*.png"))}
    print(json.dumps(sizes))


def wait_for(url: str) -> None:
    """Wait up to a minute for a server."""
    for _ in range(120):
        try:
            urllib.request.urlopen(url)
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"{url} does not answer")


def show_runs(page: Page) -> None:
    """Close MLflow's assistant, and choose columns."""
    page.get_by_role("button", name="Close").last.click()
    page.add_style_tag(content="[data-assistant-ui] {display: none}")
    page.get_by_role("button", name="Columns").click()
    for name in ("Dataset", "Source", "Models", "best_map", "val/map_50", "unfreeze.end"):
        page.get_by_placeholder("Search columns").fill(name)
        page.wait_for_timeout(500)
        closed = page.locator("[class*=tree-switcher_close]")
        while closed.count():  # metrics and tags are listed in groups that open on a click
            closed.first.click()
            page.wait_for_timeout(500)
        titles = page.locator("[class*=tree-title]")
        titles.filter(has_text=re.compile(f"^{name}$")).last.click(timeout=3000)
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")  # no frame around the button
    page.mouse.move(0, 0)


def keep(page: Page, name: str) -> None:
    """Save what the window shows, in 256 colours."""
    page.wait_for_timeout(3000)
    DOCS.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(page.screenshot())) as taken:
        few = taken.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT)
        few.save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
