"""What README, the pages on starting and the notebook show is run as it stands.

The only changes: a small data set takes the place of the reader's, and searches are cut short.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image
from ruamel.yaml import YAML

from trainer.config_fields import set_field
from trainer.data.embedded_digits import make_digits

pytestmark = [pytest.mark.docs, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURES = {"train": 24, "val": 8, "test": 8}
SHORT: dict[str, Any] = {
    "model.image_size": 128,
    "train.head.epochs": 1,
    "train.unfreeze.epochs": 2,
    "train.unfreeze.open_epochs": 2,
    "search.confirm": "off",
}
SKILL = "skills/unfreeze/SKILL.md"
NO_VIEWER = "from PIL import ImageShow; ImageShow._viewers.clear()\n"
"""Runs before a snippet: its pictures open no window."""
DONE_BEFORE = {"make venv", "make test", "source .venv/bin/activate"}
"""Lines that have happened already where this test runs."""


EMBEDDED_SEARCHES: list[str] = []
"""The search of the embedded digits, once it has run."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def reader(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody with a data set DATA, some pictures, and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "DATA" / "images").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    of_train = json.loads((digits / "train.json").read_text())
    of_test = json.loads((digits / "test.json").read_text())
    skipped = PICTURES["train"]
    write_split(digits, of_train, "train", 0)
    write_split(digits, of_train, "val", skipped)
    write_split(digits, of_test, "test", 0)
    first = sorted((tmp_path / "DATA" / "images").iterdir())[0]
    Image.open(first).save(tmp_path / "picture.jpg")
    Image.open(first).save(tmp_path / "pictures" / "one.jpg")
    return tmp_path


def write_split(digits: Path, content: dict[str, Any], name: str, first: int) -> None:
    images = content["images"][first : first + PICTURES[name]]
    kept = {image["id"] for image in images}
    annotations = [a for a in content["annotations"] if a["image_id"] in kept]
    for image in images:
        shutil.copy(digits / "images" / image["file_name"], Path("DATA/images"))
    part = {**content, "images": images, "annotations": annotations}
    Path("DATA", f"{name}.json").write_text(json.dumps(part))


@pytest.mark.parametrize("page", ["README.md", "docs/get-started.md", "docs/python.md", SKILL])
def test_every_snippet_of_a_page_runs(page: str, reader: Path) -> None:
    python = NO_VIEWER
    for language, block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "python":
            python += block
        elif language == "":
            for line in block.splitlines():
                run_line(line.partition("  #")[0].strip())
    if python != NO_VIEWER:
        run_python(python)


def run_line(line: str) -> None:
    """Run a line of a shell block as a reader with this data set would type it."""
    if not line or line in DONE_BEFORE:
        return
    if line == "make search":
        makefile = (ROOT / "Makefile").read_text()
        assert "search: venv\n\t$(BIN)/unfreeze search\n" in makefile
        line = "unfreeze search"
    if line == "unfreeze search":
        if EMBEDDED_SEARCHES:  # minutes, and the same on every page
            return
        EMBEDDED_SEARCHES.append(line)
    command = (
        line.removeprefix(".venv/bin/").replace("PICTURES", "pictures").replace("NAME", "DATA")
    )
    if command == "unfreeze ui":
        check_ui()
        return
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    if command.startswith("unfreeze init"):
        shorten(Path("search.yaml"))


def shorten(file: Path) -> None:
    yaml = YAML()
    raw = yaml.load(file)
    for path, value in {**SHORT, "search.trials": 2}.items():
        set_field(raw, path, value)
    yaml.dump(raw, file)


def check_ui() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(["unfreeze", "ui", "--port", str(port)])
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                return
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(60)


def run_python(code: str) -> None:
    settings = {path: value for path, value in SHORT.items() if path != "search.trials"}
    code, calls = re.subn(
        r"trials=12(, settings=\{[^}]*\})?\)", f"trials=2, settings={settings})", code
    )
    assert calls
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


def test_the_notebook_runs_and_shows_one_table_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8")
    notebook: Any = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    (cell,) = [cell for cell in notebook.cells if "trials=6)" in cell.source]
    cell.source = cell.source.replace("trials=6)", f"trials=2, settings={SHORT})")
    NotebookClient(
        notebook, timeout=3000, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    tables = [o for o in cell.outputs if o.output_type == "display_data"]
    assert len(tables) == 1 and "2 of 2 trials" in tables[0].data["text/plain"]
    assert "\x1b" not in json.dumps(cell.outputs)
    shown = [
        o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(shown) == 1
