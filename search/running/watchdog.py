"""Ends a worker that hangs, and writes down what each of its threads did."""

import faulthandler
from pathlib import Path
from types import TracebackType

FIRST_STEP_SECONDS = 3600.0
"""Seconds until the first step of a trial, which may have to download its weights."""


class Watchdog:
    """Ends this process if no step comes in time, and writes its stacks into `file`.

    Within the `with` block, the first step may take FIRST_STEP_SECONDS, each later one
    `hang_timeout`.
    """

    def __init__(self, file: Path, hang_timeout: float) -> None:
        self._timeout = hang_timeout
        self._stacks = file.open("a")
        self._size_before = self._stacks.tell()
        self._loading = True

    def __enter__(self) -> "Watchdog":
        limit = max(FIRST_STEP_SECONDS, self._timeout)
        self._stacks.write(f"no step within {limit:.0f} s, in which its model was to be loaded:\n")
        self._stacks.flush()
        faulthandler.dump_traceback_later(limit, exit=True, file=self._stacks)
        return self

    def step(self) -> None:
        """A step is done: wait for the next one."""
        if self._loading:  # remove the line about loading: it was in time
            self._loading = False
            self._stacks.truncate(self._size_before)
        faulthandler.dump_traceback_later(self._timeout, exit=True, file=self._stacks)

    def pause(self) -> None:
        """Do not watch until the next step."""
        faulthandler.cancel_dump_traceback_later()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._loading:
            self._stacks.truncate(self._size_before)
        self._stacks.close()
