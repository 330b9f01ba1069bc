"""Consoles that print plain text: no control codes, no secrets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from search.reporting.console import (
    Prose,
    first_that_fits,
    lasting_console,
    print_json,
    print_plain,
    program_name,
    text_console,
)


def test_texts_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text_console().print("valve [open], [/closed] on cuda[0] :smile:")
    assert capsys.readouterr().out == "valve [open], [/closed] on cuda[0] :smile:\n"


@pytest.mark.parametrize(
    ("called", "on_path", "typed"),
    [
        (".venv/bin/unfreeze", True, "unfreeze"),
        (".venv/bin/unfreeze", False, ".venv/bin/unfreeze"),
        ("/a folder/bin/unfreeze", False, "'/a folder/bin/unfreeze'"),
        ("/lib/pytest/__main__.py", False, "unfreeze"),
    ],
)
def test_the_next_command_is_one_that_the_shell_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str, on_path: bool, typed: str
) -> None:
    if on_path:
        (tmp_path / "unfreeze").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [called])
    assert program_name() == typed


PATH = "/" + "/".join(["a-folder-with-a-long-name"] * 6) + "/picture.jpg"
SENTENCE = "Most of what stands here is prose, which a terminal wraps where a word ends: " + PATH


def test_what_is_no_terminal_gets_no_line_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a", "b")
    table.add_row(PATH, SENTENCE)
    text_console().print(SENTENCE, Prose(SENTENCE), first_that_fits(text_console(), [table]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [SENTENCE, SENTENCE]
    assert [line.count(PATH) for line in lines if PATH in line] == [1, 1, 2]


@pytest.mark.usefixtures("narrow")
def test_a_terminal_wraps_prose_between_words_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text_console().print(SENTENCE)
    text_console().print(Prose(Text(SENTENCE), indent=2))
    assert capsys.readouterr().out.splitlines() == [
        SENTENCE,
        "  Most of what stands here is prose, which a terminal wraps where a word ends:",
        f"  {PATH}",
    ]


@pytest.mark.usefixtures("narrow")
def test_the_first_table_that_fits_is_chosen_and_never_broken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def table(*cells: str) -> Table:
        made = Table(*cells, box=None)
        made.add_row(*cells)
        return made

    console = text_console()
    wide, narrow, least = table("a" * 50, "b" * 50), table("a b c", "d"), table("e")
    assert first_that_fits(console, iter([wide, narrow, least])) is narrow
    console.print(first_that_fits(console, [wide]))
    heads, row = capsys.readouterr().out.splitlines()
    assert heads == row and row.split() == ["a" * 50, "b" * 50]


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Zürich", "map": None})
    assert json.loads(capsys.readouterr().out) == {"name": "Zürich", "map": None}


HOSTILE = "\x1b]0;owned\x07\x1b[31mred\u202e"
SHOWN = r"\x1b]0;owned\x07\x1b[31mred\u202e"


def test_a_name_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(HOSTILE)
    table.add_row(Text(HOSTILE, style="bold"))
    for console in (text_console(), lasting_console()):
        console.print(f"{HOSTILE}\n{HOSTILE}", table)
    print_plain(f"{HOSTILE}\nhttps://canary:x@host")
    print_plain(HOSTILE, error=True)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\u202e" not in out + err and "\x07" not in out + err
    assert out.endswith(f"{SHOWN}\nhttps://***@host\n") and err == f"{SHOWN}\n"


def test_warnings_and_tracebacks_are_plain_and_without_secrets() -> None:
    code = (
        "import logging, search.reporting.console as c; c.log_plainly();"
        f"logging.getLogger('a').warning('password=canary %s', {HOSTILE!a});"
        f"raise RuntimeError('https://canary:x@host ' + {HOSTILE!a})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("password=*** ") and "\x1b" not in done.stderr
    assert last == f"RuntimeError: https://***@host {SHOWN}"
    assert "canary:x" not in last
