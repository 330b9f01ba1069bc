"""What a user reads when a command fails: lines, JSON and the exit code."""

import argparse
import contextlib
import json
from collections.abc import Iterator
from errno import EACCES, EDQUOT, ELOOP, ENAMETOOLONG, ENOSPC, EPERM, EROFS
from pathlib import Path
from typing import NoReturn

from trainer.text.redaction import redacted

USER_ERRORS = {EACCES, EPERM, EROFS, ENOSPC, EDQUOT, ENAMETOOLONG, ELOOP}
"""Errors of the operating system that a user can do something about."""


class UsageError(SystemExit):
    """A command line that argparse refuses; usage and message are printed already."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class Parser(argparse.ArgumentParser):
    """An argument parser whose exit carries the error message."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message. Raises UsageError."""
        with contextlib.suppress(SystemExit):
            super().error(message)
        raise UsageError(message)


def explain(error: BaseException, resumable: bool) -> tuple[list[str], int] | None:
    """The lines to print for an error, and the exit code; None when the error is a bug.

    Args:
        error: what a command raised.
        resumable: whether the same command continues what was interrupted.
    """
    from clusters.definitions import ClusterConnectionError
    from trainer.config import InputError

    from ..study.disk import is_disk_full
    from ..study.lock import SearchBusyError

    if isinstance(error, InputError):
        return error.errors, 2
    if isinstance(error, OSError) and error.errno in USER_ERRORS:
        line = f"{error.filename or 'disk'}: {error.strerror}"
        if not is_disk_full(error):
            return [line], 2
        hint = "; free some space, and the same command continues" if resumable else ""
        return [line + hint], 1
    if isinstance(error, SearchBusyError | ClusterConnectionError):
        return [str(error)], 1
    if isinstance(error, KeyboardInterrupt):
        return [f"interrupted{'; the same command continues' if resumable else ''}"], 1
    return None


@contextlib.contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Name the option in an error of writing its path.

    Raises:
        InputError: the path cannot be written, except on a full disk, which is no bad input.
    """
    from trainer.config import InputError

    from ..study.disk import is_disk_full

    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError([f"{option} {path} cannot be written ({error.strerror})"]) from error


def as_json(lines: list[str]) -> str:
    """The JSON of a command that failed: the fields of `unfreeze check --json`, no secrets."""
    messages = [redacted(line) for line in lines]
    return json.dumps({"errors": len(lines), "warnings": 0, "findings": [], "messages": messages})
