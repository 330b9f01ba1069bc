"""README shows commands that exist and a map of the files that are there."""

import re
import shlex
from pathlib import Path

import pytest

from search.commands.cli import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = ("trainer", "search", "clusters")
(COMMANDS,) = (action.choices for action in parser()._actions if isinstance(action.choices, dict))


def shown_lines() -> list[str]:
    """Every `unfreeze ...` of README, within a line or in a block, without its comment."""
    quoted = re.findall(r"`(?:\.venv/bin/)?(unfreeze [^`\n]+)`", README)
    blocks = re.findall(r"^(?:\.venv/bin/)?(unfreeze .*?)(?:\s+#.*)?$", README, re.MULTILINE)
    return list(dict.fromkeys(line.strip() for line in [*quoted, *blocks]))


def the_map() -> set[str]:
    """Every folder and file that the map names, by its path."""
    block = re.search(r"^## Map\n+```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert block is not None
    found: set[str] = set()
    room = folder = ""
    for line in block[1].splitlines():
        indent, named = re.match(r"( *)(\w+/)?", line).groups()  # type: ignore[union-attr]
        if named and not indent:
            room = folder = named
        elif named:
            folder = room + named
        elif len(indent) == 2:  # deeper lines go on with the folder above
            folder = room
        found |= {folder, *(folder + file for file in re.findall(r"\w+\.(?:py|txt|yaml)\b", line))}
    return found


def test_readme_shows_commands() -> None:
    assert len(shown_lines()) >= 5
    assert "search" in COMMANDS


@pytest.mark.parametrize("line", shown_lines())
def test_a_shown_command_is_one_with_options_that_exist(line: str) -> None:
    command, *rest = shlex.split(line)[1:]
    assert command in COMMANDS
    options = [word.partition("=")[0] for word in rest if word.startswith("--")]
    known = COMMANDS[command]._option_string_actions
    assert [option for option in options if option not in known] == []


@pytest.mark.parametrize("line", shown_lines())
def test_a_shown_line_with_its_arguments_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    if len(words) == 1 and words[0] not in {"search", "list", "ui"}:
        pytest.skip("the command's name alone")
    parser().parse_args(words)


def test_every_place_in_the_map_is_there() -> None:
    places = the_map()
    assert {f"{room}/" for room in ROOMS} <= places
    assert [place for place in sorted(places) if not (ROOT / place).exists()] == []


def test_every_file_of_the_rooms_is_in_the_map() -> None:
    files = {
        str(file.relative_to(ROOT))
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        if file.name != "__init__.py"
    }
    assert sorted(files - the_map()) == []


def test_every_path_that_readme_quotes_is_there() -> None:
    quoted = re.findall(rf"`((?:{'|'.join(ROOMS)}|benchmarks|tests)/[\w./]+)`", README)
    assert quoted
    assert [path for path in quoted if not (ROOT / path).exists()] == []
