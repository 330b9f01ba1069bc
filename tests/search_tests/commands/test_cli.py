"""The commands: quick help, exit codes, and nothing written on bad input."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.commands.cli import main, parser
from search.space.config_file import write_yaml
from search.study.lock import locked
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
)
QUICK = ["--set", "train.precision=fp32", "--set", "train.trunk_cache=off"]
"""What is measured at a search's start unless it is given."""
HEAVY = ("torch", "torchvision", "timm", "ray", "mlflow", "optuna", "numpy", "pydantic", "rich")
READERS = (
    "status once",
    "report once",
    "clean once",
    "export once --trial 0 --out model",
    "train once.yaml",
)
"""Commands that read a search's folder."""
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
    "a place that is taken": "export nope --out taken",
    "no model to evaluate": "evaluate nope tiny.yaml",
    "no model to predict with": "predict nope . --out out",
    "no data": "init nowhere",
    "no store": "ui",
}


def tree() -> list[tuple[str, bytes]]:
    return sorted((str(f), f.read_bytes()) for f in Path().rglob("*") if f.is_file())


@pytest.fixture
def files(write_search: Make, tmp_path: Path) -> None:
    """A search.yaml, and a folder that is taken."""
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
    assert done.stdout.splitlines()[-1] == "[0, 0, 2] set()"  # it is over: there is none to stop


def processor_seconds() -> float:
    """Of all processes that this one has waited for."""
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
    told = capsys.readouterr()
    assert told.err.strip() and told.out == ""
    assert "Traceback" not in told.err
    assert (tree(), sorted(Path().rglob("*"))) == before


@pytest.mark.parametrize("line", ["", "serch", "search --trails 3", "export once", "evaluate once"])
def test_a_command_line_that_is_none_is_2(capsys: Captured, line: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(line.split())
    assert stopped.value.code == 2
    assert "usage: unfreeze" in capsys.readouterr().err


def test_every_error_of_a_file_is_told(write_search: Make, capsys: Captured) -> None:
    write_search({"search.trials": 0, "train.head.lr": 100, "modle": {}})
    assert main(["search", "tiny.yaml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_init_into_a_folder_that_is_not_there_is_bad_input(
    tiny_data: Data, capsys: Captured
) -> None:
    assert main(["init", str(tiny_data.train.parent), "--out", "no/search.yaml"]) == 2
    assert "no/search.yaml" in capsys.readouterr().err


def test_detections_into_a_folder_that_is_not_there_are_bad_input(
    trained: Trained, tiny_data: Data, capsys: Captured
) -> None:
    shutil.copytree(trained.winner, "model")
    line = ["evaluate", "model", str(tiny_data.val), "--detections", "no/found.json"]
    assert main(line) == 2
    assert "no/found.json" in capsys.readouterr().err


# -- what works -----------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing(files: None, capsys: Captured) -> None:
    before = tree()
    assert main(["search", "tiny.yaml", "--dry-run", "--trials", "3", "--cluster", "auto"]) == 0
    out = capsys.readouterr().out
    assert "3 trials" in out and "cluster: auto" in out
    assert tree() == before


def test_the_default_needs_no_file(capsys: Captured) -> None:
    assert main(["search", "--dry-run", *QUICK]) == 0
    assert "name: digits" in capsys.readouterr().out


def test_list_of_an_empty_folder_is_no_error(capsys: Captured) -> None:
    Path("empty").mkdir()
    assert main(["list", "--storage", "empty"]) == 0
    assert capsys.readouterr().out == f"no searches in {Path('empty').absolute()}\n"
    assert main(["list"]) == 0
    assert not list(Path("empty").iterdir()) and not Path("searches").exists()


def test_status_of_a_search_that_is_over(trained: Trained, capsys: Captured) -> None:
    assert main(["status", "once", "--storage", str(trained.config.storage)]) == 0
    assert "once: done, tracking sqlite:///" in " ".join(capsys.readouterr().out.split())


def test_init_then_dry_run(tiny_data: Data, capsys: Captured) -> None:
    assert main(["init", str(tiny_data.train.parent), "--out", "cells.yaml"]) == 0
    assert main(["search", "cells.yaml", "--dry-run", *QUICK]) == 0
    assert main(["init", str(tiny_data.train.parent), "--out", "cells.yaml"]) == 2
    assert "cells.yaml is there already" in capsys.readouterr().err


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


def test_evaluate_can_answer_in_json(trained: Trained, tiny_data: Data, capsys: Captured) -> None:
    shutil.copytree(trained.winner, "model")
    assert main(["evaluate", "model", str(tiny_data.train.parent), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "val"
    assert len(found["figures"]) == 12 and found["per_class"].keys() == {"red", "blue"}


def test_evaluate_measures_several_splits(
    trained: Trained, tiny_data: Data, capsys: Captured
) -> None:
    shutil.copytree(trained.winner, "model")
    line = ["evaluate", "model", str(tiny_data.train.parent), "--split", "train", "--split", "val"]
    assert main([*line, "--json"]) == 0
    train, val = map(json.loads, capsys.readouterr().out.splitlines())
    assert (train["split"], val["split"]) == ("train", "val")
    assert val["figures"] == trained.result.metrics["val"]["figures"] != train["figures"]
    assert main([*line, "--detections", "found.json"]) == 2
    assert capsys.readouterr().err == "--detections is one file: give one --split\n"
    assert not Path("found.json").exists()


def test_predict_with_an_unreadable_picture_is_1_and_draws_the_rest(
    trained: Trained, tiny_data: Data, capsys: Captured
) -> None:
    good = tiny_data.train.parent / "images" / "val-00.png"
    Path("bad.png").write_bytes(b"")
    line = ["predict", str(trained.winner), str(good), "bad.png", "--out", "out"]
    assert main(line) == 1
    assert "bad.png" in capsys.readouterr().err
    assert Path("out/val-00.jpg").is_file()


def test_export_by_name(trained: Trained, capsys: Captured) -> None:
    storage = str(trained.config.storage)
    assert main(["export", "once", "--trial", "0", "--storage", storage, "--out", "model"]) == 0
    assert capsys.readouterr().out == "wrote model\n"
    assert main(["export", "once", "--storage", storage, "--out", "model"]) == 2


DAMAGE = {
    "search.yaml": lambda content: b"",
    "study.journal": lambda content: content.replace(b"{", b"", 1),
    "winner/metrics.json": lambda content: content[: len(content) // 2],
    "trials/0/review/precision_recall.png": lambda content: content[: len(content) // 2],
}


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


def test_half_a_last_line_of_a_journal_is_none(trained: Trained, capsys: Captured) -> None:
    shutil.copytree(trained.config.storage, "searches")
    with Path("searches/once/study.journal").open("a") as journal:
        journal.write('{"op_code": 8, "wor')
    for line in ("list", "status once", "report once", "clean once"):
        assert main(line.split()) == 0
    assert "once" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer_is_1_and_nothing_is_written(
    files: None, capsys: Captured
) -> None:
    before = tree()
    assert main(["search", "tiny.yaml", "--cluster", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("cluster: 127.0.0.1:1: ")
    assert tree() == before and not Path("searches").exists()


def test_a_training_that_another_process_runs_is_1(files: None, capsys: Captured) -> None:
    with locked(Path("searches/tiny")):
        assert main(["train", "tiny.yaml"]) == 1
    assert "tiny is being run by process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train tiny.yaml", "interrupted; the same line continues\n"),
        ("models", "interrupted\n"),
    ],
)
def test_ctrl_c_is_1_and_says_how_to_go_on(
    files: None, capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str, told: str
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.running.single.train", interrupted)
    monkeypatch.setattr("search.commands.models.print_models", interrupted)
    assert main(line.split()) == 1
    assert capsys.readouterr().err == told


def test_what_may_not_be_read_or_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "searches")

    monkeypatch.setattr("search.reporting.status.print_list", refuse)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "searches: Permission denied\n"
