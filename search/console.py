"""Where commands print."""

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

from rich.console import Console

PROGRAM = "unfreeze"


AS_THEY_ARE = {"highlight": False, "markup": False, "emoji": False}
"""Texts: a class may be called `valve [open]`, a list `[adamw, sgd]`."""


class _Lasting(Console):
    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def text_console() -> Console:
    """Prints texts as they are."""
    return Console(**AS_THEY_ARE)


def lasting_console() -> Console:
    """The same, and goes silent, rather than end the process, when its reader has gone."""
    return _Lasting(**AS_THEY_ARE)


def program() -> str:
    """What to type for `unfreeze`: as it was called, where a shell would not find its name."""
    called = sys.argv[0]
    return PROGRAM if shutil.which(PROGRAM) or Path(called).name != PROGRAM else quote(called)
