"""Ctrl+C and SIGTERM while a search runs."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import pytest

from search.running.tune.signals import answer_sigint, sigint_restored, sigterm_as_sigint


@pytest.fixture
def interrupts() -> Iterator[list[int]]:
    """The SIGINTs that come."""
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGINT, before)


def test_sigterm_arrives_as_sigint(interrupts: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_as_sigint():
        signal.raise_signal(signal.SIGTERM)
    assert interrupts == [signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_handler_before_is_back_at_the_end(interrupts: list[int]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with sigint_restored():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_answer_that_fails_does_not_stop_the_handler(interrupts: list[int]) -> None:
    def fail() -> None:
        raise OSError("a closed terminal")

    with sigint_restored():
        answer_sigint(fail)
        signal.raise_signal(signal.SIGINT)
    assert interrupts == [signal.SIGINT]


def test_in_another_thread_nothing_changes() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    errors: list[BaseException] = []

    def use() -> None:
        try:
            with contextlib.ExitStack() as held:
                held.enter_context(sigterm_as_sigint())
                held.enter_context(sigint_restored())
                answer_sigint(lambda: None)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not errors
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
