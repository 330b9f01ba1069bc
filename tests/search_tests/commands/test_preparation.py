"""`unfreeze init` and `models` on the command line; `test_check.py` runs `check`."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from search.commands.cli import main
from trainer.config import Data

Captured = pytest.CaptureFixture[str]
QUICK = ["--set", "train.precision=fp32", "--set", "train.trunk_cache=off"]
"""Settings that a search would measure at its start."""


def test_init_into_a_missing_folder_is_bad_input(tiny_data: Data, capsys: Captured) -> None:
    assert main(["init", str(tiny_data.train.parent), "--out", "no/search.yaml"]) == 2
    assert "no/search.yaml" in capsys.readouterr().err


def test_init_then_dry_run(tiny_data: Data, capsys: Captured) -> None:
    assert main(["init", str(tiny_data.train.parent), "--out", "cells.yaml"]) == 0
    assert main(["search", "cells.yaml", "--dry-run", *QUICK]) == 0
    assert main(["init", str(tiny_data.train.parent), "--out", "cells.yaml"]) == 2
    assert "cells.yaml is there already" in capsys.readouterr().err


def test_models_prints_one_model_by_its_name(capsys: Captured) -> None:
    assert main(["models", "resnet50"]) == 0
    assert "stage 5: layer4" in capsys.readouterr().out
    assert main(["models", "resnt50"]) == 2


@pytest.mark.parametrize("out", ["locked", "locked/new"])
def test_check_refuses_a_folder_that_may_not_be_written_before_it_reads_pictures(
    tiny_data: Data, capsys: Captured, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    Path("locked").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    monkeypatch.setattr("search.commands.check.examine", lambda *_, **__: pytest.fail("it reads"))
    assert main(["check", str(tiny_data.train.parent), "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"--out {out}: ") and error.endswith("locked may not be written\n")


def test_init_prints_the_file_where_out_is_a_dash(tiny_data: Data, capsys: Captured) -> None:
    data = Path(shutil.copytree(tiny_data.train.parent, "cells"))
    (data / "val.json").unlink()
    assert main(["init", "cells", "--out", "-"]) == 0
    printed = capsys.readouterr()
    assert not Path("-").exists() and not Path("search.yaml").exists()
    assert "no val given" in printed.err and "no val given" not in printed.out
    assert "wrote" not in printed.out + printed.err
    raw = YAML(typ="safe").load(printed.out)
    assert (raw["name"], raw["data"]["train"]) == ("cells", "cells/train.json")
    Path("cells.yaml").write_text(printed.out)
    assert main(["search", "cells.yaml", "--dry-run", *QUICK]) == 0
