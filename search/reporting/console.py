"""Where commands print."""

import logging
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from trainer.text.escaping import printable_lines
from trainer.text.redaction import redacted

PROGRAM = "unfreeze"


class _Texts(Console):
    """Whatever is printed, no name in it moves the cursor or gives the terminal commands."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else printable_lines(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)


class _Lasting(_Texts):
    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()


def text_console() -> Console:
    """Prints texts as they are: a class may be called `valve [open]`, a list `[adamw, sgd]`."""
    return _for_texts(_Texts)


def lasting_console() -> Console:
    """The same, and goes silent, rather than end the process, when its reader has gone."""
    return _for_texts(_Lasting)


def _for_texts(kind: type[_Texts]) -> Console:
    return kind(highlight=False, markup=False, emoji=False)


def program() -> str:
    """What to type for `unfreeze`: as it was called, where a shell would not find its name."""
    called = sys.argv[0]
    return PROGRAM if shutil.which(PROGRAM) or Path(called).name != PROGRAM else quote(called)


def tell(line: object, *, error: bool = False) -> None:
    """Print a line, or one of what went wrong, as plain text without secrets."""
    print(_plain(str(line)), file=sys.stderr if error else sys.stdout, flush=True)


def _plain(text: str) -> str:
    return printable_lines(redacted(text))


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _plain(super().format(record))


def log_plainly() -> None:
    """Have warnings, and the traceback of what nobody foresaw, go to stderr in the same way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    sys.excepthook = _tell_traceback


def _tell_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    tell("".join(traceback.format_exception(kind, error, trace)).rstrip(), error=True)
