"""The command line: quick help, exit codes, and nothing written on bad input."""

import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from search.commands.cli import main, parser
from trainer.config import Data

from ..conftest import Trained

Make = Callable[..., Any]
Captured = pytest.CaptureFixture[str]
COMMANDS = (
    "init",
    "check",
    "models",
    "search",
    "train",
    "list",
    "status",
    "stop",
    "report",
    "clean",
    "export",
    "evaluate",
    "predict",
    "ui",
    "completion",
)
HEAVY = ("torch", "torchvision", "timm", "ray", "mlflow", "optuna", "numpy", "pydantic", "rich")
WRITERS = ("init", "check", "predict", "export", "evaluate")
"""Commands that write where an option says."""
BAD = {
    "no such file": "search no.yaml",
    "a folder for a file": "search .",
    "no trials": "search tiny.yaml --trials 0",
    "a broken setting": "search tiny.yaml --set train.seed",
    "an unknown setting": "search tiny.yaml --set train.sead=1",
    "a bad name": "search tiny.yaml --name a/b",
    "a bad dry run": "search tiny.yaml --dry-run --set model.image_size=100",
    "a job without a cluster": "search tiny.yaml --detach",
    "a bad training": "train tiny.yaml --set train.unfreeze.depth=9",
    "no such training": "train no.yaml",
    "no such search": "status nope",
    "no model to export": "export nope --out out",
    "no trial to export": "export nope --trial 0 --out out",
    "a folder that exists": "export nope --out taken",
    "no model to evaluate": "evaluate nope tiny.yaml",
    "no model to predict with": "predict nope . --out out",
    "no data": "init nowhere",
    "no store": "ui",
}


def tree() -> list[tuple[str, bytes]]:
    return sorted((str(f), f.read_bytes()) for f in Path().rglob("*") if f.is_file())


@pytest.fixture
def files(write_search: Make, tmp_path: Path) -> None:
    """A search.yaml, and an empty folder."""
    write_search()
    (tmp_path / "taken").mkdir()


# -- help -----------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from search.commands.cli import main\n"
        f"for line in [['--help']] + [[c, '--help'] for c in {COMMANDS!r}]:\n"
        "    try: main(line)\n"
        "    except SystemExit as stopped: assert stopped.code == 0\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def processor_seconds() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_takes_less_than_a_second(command: str) -> None:
    before = processor_seconds()
    line = [sys.executable, "-m", "search.commands.cli", *command.split(), "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert processor_seconds() - before < 1
    assert done.stdout.startswith("usage: unfreeze")


def test_help_lists_every_command() -> None:
    (known,) = (a.choices for a in parser()._actions if isinstance(a.choices, dict))
    assert list(known) == list(COMMANDS)
    text = parser().format_help()
    assert all(f"    {command} " in text for command in COMMANDS)


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_bad_input_is_2_with_a_reason_and_nothing_is_written(
    files: None, capsys: Captured, line: str
) -> None:
    before = tree(), sorted(Path().rglob("*"))
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.strip() and printed.out == ""
    assert "Traceback" not in printed.err
    assert (tree(), sorted(Path().rglob("*"))) == before


@pytest.mark.parametrize(
    ("command", "out"),
    list(product(WRITERS, ("/proc/x", "/proc/x/y", "file/x", "file/x/y"))),
)
def test_an_output_that_cannot_be_written_is_2_and_named(
    trained: Trained, tiny_data: Data, capsys: Captured, command: str, out: str
) -> None:
    Path("file").touch()
    model, data = str(trained.winner), str(tiny_data.train.parent)
    picture = str(tiny_data.train.parent / "images" / "val-00.png")
    if command == "evaluate":
        line = [command, model, data, "--detections", out]
    else:
        given = {"init": [data], "check": [data], "predict": [model, picture], "export": [model]}
        line = [command, *given[command], "--out", out]
    assert main(line) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith(f"{line[-2]} {out}") and len(printed) > len(" ".join(line[-2:])) + 2
    assert Path("file").read_bytes() == b"" and not Path("searches").exists()


@pytest.mark.parametrize("line", ["", "serch", "search --trails 3", "export once", "evaluate once"])
def test_an_invalid_command_line_is_2(capsys: Captured, line: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    assert "usage: unfreeze" in capsys.readouterr().err


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train tiny.yaml", "interrupted; the same command continues\n"),
        ("models", "interrupted\n"),
    ],
)
def test_ctrl_c_is_1_and_says_how_to_go_on(
    files: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.running.single.train", interrupted)
    monkeypatch.setattr("search.commands.models.print_models", interrupted)
    assert main(line.split()) == 1
    assert capsys.readouterr().err == message


def test_an_error_of_the_operating_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "searches")

    monkeypatch.setattr("search.reporting.status.print_list", refuse)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "searches: Permission denied\n"
