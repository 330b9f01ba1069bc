"""Where commands print."""

import shutil
import sys
from pathlib import Path
from shlex import quote

from rich.console import Console

PROGRAM = "unfreeze"


def text_console() -> Console:
    """Prints texts as they are: a class may be called `valve [open]`, a list `[adamw, sgd]`."""
    return Console(highlight=False, markup=False, emoji=False)


def program() -> str:
    """What to type for `unfreeze`: as it was called, where a shell would not find its name."""
    called = sys.argv[0]
    return PROGRAM if shutil.which(PROGRAM) or Path(called).name != PROGRAM else quote(called)
