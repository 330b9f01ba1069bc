"""A command that could not be done: what is said of it, also in JSON, and its exit code."""

import argparse
import contextlib
import json
from errno import EACCES, EDQUOT, ELOOP, ENAMETOOLONG, ENOSPC, EPERM, EROFS
from typing import NoReturn

from trainer.text.redaction import redacted

NO_BUGS = {EACCES, EPERM, EROFS, ENOSPC, EDQUOT, ENAMETOOLONG, ELOOP}
"""Errors of the system that a user can do something about."""


class Misused(SystemExit):
    """argparse refuses the command line; its usage and the message have been printed."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class Parser(argparse.ArgumentParser):
    """argparse's, whose exit says what was wrong."""

    def error(self, message: str) -> NoReturn:
        with contextlib.suppress(SystemExit):
            super().error(message)
        raise Misused(message)


def explain(error: BaseException, goes_on: bool) -> tuple[list[str], int] | None:
    """What is said of an error, line by line, and the exit code; None for one that is a bug.

    `goes_on` is whether the same line continues what was interrupted.
    """
    from clusters.definitions import CannotConnect
    from trainer.config import BadInput

    from ..study.lock import Busy

    if isinstance(error, BadInput):
        return error.errors, 2
    if isinstance(error, OSError) and error.errno in NO_BUGS:
        line = f"{error.filename or 'disk'}: {error.strerror}"
        return [line], 1 if error.errno in {ENOSPC, EDQUOT} else 2
    if isinstance(error, Busy | CannotConnect):
        return [str(error)], 1
    if isinstance(error, KeyboardInterrupt):
        return [f"interrupted{'; the same line continues' if goes_on else ''}"], 1
    return None


def as_json(lines: list[str]) -> str:
    """What --json prints where there is nothing else to print, without secrets."""
    messages = [redacted(line) for line in lines]
    return json.dumps({"errors": len(lines), "warnings": 0, "findings": [], "messages": messages})
