"""Consoles and log handlers that print plain text: no control codes, no secrets.

Nothing is wrapped but prose, and that on a terminal alone: a path or a command can be copied.
"""

import io
import json
import logging
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trainer.text.escaping import printable_lines
from trainer.text.redaction import redacted

PROGRAM = "unfreeze"
NO_WIDTH = 100_000
"""Columns of what is no terminal: more than any line has."""


class _TextConsole(Console):
    """Escapes control codes in what it prints, so no name can give the terminal commands."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else printable_lines(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)


class _LastingConsole(_TextConsole):
    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):  # rich would end the process
            super().on_broken_pipe()


def text_console() -> Console:
    """A console that takes no markup: a class may be called `valve [open]`."""
    return _without_markup(_TextConsole)


def lasting_console() -> Console:
    """A text console that goes silent, instead of ending the process, when its reader has gone."""
    return _without_markup(_LastingConsole)


def plain_text(write: Callable[[Console], None]) -> str:
    """What a function writes to a console, as text without colours in lines of 100 columns."""
    text = io.StringIO()
    console = _without_markup(_TextConsole, text)
    console.width = 100
    write(console)
    return text.getvalue()


def _without_markup(kind: type[_TextConsole], file: IO[str] | None = None) -> Console:
    # in a notebook rich would make a page of each line
    console = kind(
        file=file, highlight=False, markup=False, emoji=False, soft_wrap=True, force_jupyter=False
    )
    if not console.is_terminal:
        console.width = NO_WIDTH
    return console


class Prose:
    """Sentences, which a terminal shows wrapped between words; a longer word stays in one piece.

    Args:
        text: The sentences.
        indent: Spaces before each line.
    """

    def __init__(self, text: str | Text, indent: int = 0) -> None:
        self._text = Text(text) if isinstance(text, str) else text
        self._indent = indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in self._text.split("\n", allow_blank=True):
            breaks = _line_breaks(line.plain, options.max_width - self._indent)
            for part in line.divide(breaks):
                part.rstrip()
                yield Text.assemble(" " * self._indent, part)


def _line_breaks(line: str, width: int) -> list[int]:
    """Where words begin that go on a new line, so that lines have at most `width` columns."""
    breaks, column = [], 0
    for word in re.finditer(r"\S+\s*", line):
        if column and column + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            column = 0
        column += cell_len(word[0])
    return breaks


def first_that_fits(console: Console, tables: Iterable[Table]) -> Table:
    """The first table that the console has the width for, else the last; no cell is broken.

    Raises ValueError without a table.
    """
    unlimited = console.options.update(max_width=NO_WIDTH)
    chosen = None
    for chosen in tables:
        chosen.width = console.measure(chosen, options=unlimited).maximum
        if chosen.width <= console.width:
            break
    if chosen is None:
        raise ValueError("no table")
    return chosen


def program_name() -> str:
    """What to type for `unfreeze`: its path, where the shell does not find it by name."""
    called = sys.argv[0]
    return PROGRAM if shutil.which(PROGRAM) or Path(called).name != PROGRAM else quote(called)


def print_plain(line: object, *, error: bool = False) -> None:
    """Print a line as plain text without secrets, to stderr if it is an error."""
    print(_plain(str(line)), file=sys.stderr if error else sys.stdout, flush=True)


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object to stdout: the answer of a command to `--json`."""
    print(json.dumps(content, indent=1), flush=True)


def _plain(text: str) -> str:
    return printable_lines(redacted(text))


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _plain(super().format(record))


def log_plainly() -> None:
    """Write warnings, and the traceback of an uncaught exception, to stderr as plain text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    sys.excepthook = _print_traceback


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    print_plain("".join(traceback.format_exception(kind, error, trace)).rstrip(), error=True)
