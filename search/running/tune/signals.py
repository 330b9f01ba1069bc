"""Ctrl+C and SIGTERM while a search runs: both end it in order.

Python allows handlers in the main thread alone. In any other thread, these functions change
nothing, and whoever owns the main thread handles signals.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, end a search as orderly as Ctrl+C."""
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def sigint_restored() -> Iterator[None]:
    """Restore the handler of Ctrl+C at the end: Tune leaves one behind that only Tune obeys."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, before)


def answer_sigint(answer: Callable[[], None]) -> None:
    """Call `answer` at Ctrl+C, then the handler that is set now."""
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        with contextlib.suppress(Exception):  # a closed terminal
            answer()
        if callable(before):
            before(number, frame)

    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, handle)
