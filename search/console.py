"""Where commands print."""

from rich.console import Console


def text_console() -> Console:
    """Prints texts as they are: a class may be called `valve [open]`, a list `[adamw, sgd]`."""
    return Console(highlight=False, markup=False, emoji=False)
