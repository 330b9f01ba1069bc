import sys
from pathlib import Path

import pytest

from search.console import program, text_console


def test_texts_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text_console().print("valve [open], [/closed] on cuda[0] :smile:")
    assert capsys.readouterr().out == "valve [open], [/closed] on cuda[0] :smile:\n"


@pytest.mark.parametrize(
    ("called", "found", "typed"),
    [
        (".venv/bin/unfreeze", True, "unfreeze"),
        (".venv/bin/unfreeze", False, ".venv/bin/unfreeze"),
        ("/a folder/bin/unfreeze", False, "'/a folder/bin/unfreeze'"),
        ("/lib/pytest/__main__.py", False, "unfreeze"),
    ],
)
def test_the_next_command_is_one_that_the_shell_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str, found: bool, typed: str
) -> None:
    if found:
        (tmp_path / "unfreeze").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [called])
    assert program() == typed
