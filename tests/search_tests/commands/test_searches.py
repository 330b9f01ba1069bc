"""Commands on searches that exist."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from search.commands.cli import main
from search.space.config_file import write_yaml

from ..conftest import Trained

Captured = pytest.CaptureFixture[str]
READERS = (
    "status once",
    "report once",
    "clean once",
    "export once --trial 0 --out model",
    "train once.yaml",
)
"""Commands that read a search's folder."""
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "search.yaml": lambda content: b"",
    "study.journal": lambda content: content.replace(b"{", b"", 1),
    "winner/metrics.json": lambda content: content[: len(content) // 2],
    "trials/0/review/precision_recall.png": lambda content: content[: len(content) // 2],
}


def test_looking_at_a_search_imports_neither_torch_nor_ray_nor_mlflow(trained: Trained) -> None:
    code = (
        "import sys\n"
        "from search.commands.cli import main\n"
        f"more = ['--storage', {str(trained.config.storage)!r}]\n"
        "codes = [main(['list', *more]), main(['status', 'once', *more])]\n"
        "codes += [main(['stop', 'once', *more])]\n"
        "heavy = {'torch', 'torchvision', 'timm', 'ray', 'mlflow'} & set(sys.modules)\n"
        "print(codes, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2] set()"  # the search is over: nothing to stop


def test_list_of_an_empty_folder_is_no_error(capsys: Captured) -> None:
    Path("empty").mkdir()
    assert main(["list", "--storage", "empty"]) == 0
    assert capsys.readouterr().out == f"no searches in {Path('empty').absolute()}\n"
    assert main(["list"]) == 0
    assert not list(Path("empty").iterdir()) and not Path("searches").exists()


def test_status_of_a_search_that_is_over(trained: Trained, capsys: Captured) -> None:
    assert main(["status", "once", "--storage", str(trained.config.storage)]) == 0
    assert capsys.readouterr().out.startswith("once: done\ntracking sqlite:///")


@pytest.mark.parametrize(
    ("line", "keys"),
    [("list", {"storage", "searches"}), ("status once", {"name", "state", "ranking", "costs"})],
)
def test_json_is_one_object(trained: Trained, capsys: Captured, line: str, keys: set[str]) -> None:
    assert main([*line.split(), "--json", "--storage", str(trained.config.storage)]) == 0
    assert keys <= json.loads(capsys.readouterr().out).keys()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("status once --json --watch", "leave --watch out"),
        ("status once --json --cluster auto", "run it on the head"),
        ("list --json --cluster auto", "run it on the head"),
        ("search --json", "--json: needs --dry-run"),
    ],
)
def test_json_is_refused_where_it_would_be_no_object(
    capsys: Captured, line: str, message: str
) -> None:
    assert main(line.split()) == 2
    (refusal,) = json.loads(capsys.readouterr().out)["messages"]
    assert message in refusal


@pytest.mark.parametrize(
    ("file", "line"),
    [
        *((file, line) for file in ("search.yaml", "study.journal") for line in READERS),
        ("winner/metrics.json", "report once"),
        ("trials/0/review/precision_recall.png", "report once"),
    ],
)
def test_a_damaged_file_of_a_search_is_2_and_named(
    trained: Trained, capsys: Captured, file: str, line: str
) -> None:
    shutil.copytree(trained.config.storage, "searches")
    raw = {**trained.raw, "storage": "searches", "tracking": "off"}
    Path("once.yaml").write_text(write_yaml(raw))
    damaged = Path("searches/once", file)
    damaged.write_bytes(DAMAGE[file](damaged.read_bytes()))
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert f"{damaged} is damaged" in err
    assert "copy" in err or "delete it" in err


def test_an_incomplete_last_line_of_a_journal_is_ignored(
    trained: Trained, capsys: Captured
) -> None:
    shutil.copytree(trained.config.storage, "searches")
    with Path("searches/once/study.journal").open("a") as journal:
        journal.write('{"op_code": 8, "wor')
    for line in ("list", "status once", "report once", "clean once"):
        assert main(line.split()) == 0
    assert "once" in capsys.readouterr().out
