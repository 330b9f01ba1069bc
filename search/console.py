"""Where commands print."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path
from shlex import quote

from rich.console import Console

PROGRAM = "unfreeze"


class _Lasting(Console):
    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()


def text_console() -> Console:
    """Prints texts as they are: a class may be called `valve [open]`, a list `[adamw, sgd]`."""
    return _for_texts(Console)


def lasting_console() -> Console:
    """The same, and goes silent, rather than end the process, when its reader has gone."""
    return _for_texts(_Lasting)


def _for_texts(kind: type[Console]) -> Console:
    return kind(highlight=False, markup=False, emoji=False)


def program() -> str:
    """What to type for `unfreeze`: as it was called, where a shell would not find its name."""
    called = sys.argv[0]
    return PROGRAM if shutil.which(PROGRAM) or Path(called).name != PROGRAM else quote(called)
