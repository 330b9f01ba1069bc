"""Consoles and log handlers that print plain text: no control codes, no secrets."""

import io
import logging
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from trainer.text.escaping import printable_lines
from trainer.text.redaction import redacted

PROGRAM = "unfreeze"


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
    """What a function writes to a console, as text without colours."""
    text = io.StringIO()
    write(_without_markup(_TextConsole, file=text, width=100))
    return text.getvalue()


def _without_markup(
    kind: type[_TextConsole], file: IO[str] | None = None, width: int | None = None
) -> Console:
    # in a notebook rich would make a page of each line
    return kind(
        file=file, width=width, highlight=False, markup=False, emoji=False, force_jupyter=False
    )


def program_name() -> str:
    """What to type for `unfreeze`: its path, where the shell does not find it by name."""
    called = sys.argv[0]
    return PROGRAM if shutil.which(PROGRAM) or Path(called).name != PROGRAM else quote(called)


def print_plain(line: object, *, error: bool = False) -> None:
    """Print a line as plain text without secrets, to stderr if it is an error."""
    print(_plain(str(line)), file=sys.stderr if error else sys.stdout, flush=True)


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
