"""`unfreeze completion`: a script that completes commands, options, files and searches' names."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from .options import add_command

if TYPE_CHECKING:
    from .options import Commands

SHELLS = ("bash", "zsh", "fish")
HELP = "a script that completes the command line: source <(unfreeze completion bash)"
SEARCHES = "find searches -mindepth 2 -maxdepth 2 -name search.yaml 2>/dev/null | cut -d/ -f2"
"""Prints the names of the searches in the default storage folder, in every shell."""
FUNCTIONS = {
    "bash": f"""\
_unfreeze_searches() {{
  compgen -W "$({SEARCHES})" -- "$1"
}}
_unfreeze_models() {{
  _unfreeze_searches "$1"
  _shtab_compgen_files "$1"
}}
""",
    "zsh": f"""\
_unfreeze_searches() {{
  compadd -- $({SEARCHES})
}}
_unfreeze_models() {{
  _unfreeze_searches
  _files
}}
""",
}
"""What the scripts call when a word is completed: a search may be new."""
NAME = {
    "bash": "_unfreeze_searches",
    "zsh": "_unfreeze_searches",
    "fish": f"({SEARCHES})",
    "preamble": FUNCTIONS,
}
"""How each shell completes the name of a search."""
MODEL = {
    "bash": "_unfreeze_models",
    "zsh": "_unfreeze_models",
    "fish": f"({SEARCHES}; __fish_complete_path (commandline -ct))",
    "preamble": FUNCTIONS,
}
"""How each shell completes MODEL: a search's name, or a file or folder."""


def add_completion(commands: "Commands", top: argparse.ArgumentParser) -> None:
    """Add `unfreeze completion`, which completes the command line `top`."""
    completion = add_command(commands, "completion", partial(_completion, top), HELP)
    completion.add_argument("shell", choices=SHELLS)


def _completion(top: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    import shtab

    for action in _actions(top):
        kind = {
            "file": shtab.glob("*.yaml", "*.yml"),
            "model": MODEL,
            "name": NAME,
        }.get(action.dest)
        if action.metavar in {"DATA", "FILE", "PICTURES"}:
            kind = kind or shtab.FILE
        elif action.metavar == "DIR":
            kind = shtab.DIRECTORY
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]  # where shtab looks for it
    print(shtab.complete(top, options.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments and options of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
