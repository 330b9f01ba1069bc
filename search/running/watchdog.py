"""Ends a worker that hangs, and leaves what each of its threads did."""

import faulthandler
from pathlib import Path
from types import TracebackType

LOADING = 3600.0
"""Seconds that a trial may take to its first step, for its weights may have to be fetched."""


class Watchdog:
    """While it is entered, this process dies when no step comes in time, its stacks in `file`:
    before the first one LOADING seconds, from then on `hang_timeout`."""

    def __init__(self, file: Path, hang_timeout: float) -> None:
        self._timeout = hang_timeout
        self._stacks = file.open("a")
        self._before = self._stacks.tell()
        self._loads = True

    def __enter__(self) -> "Watchdog":
        limit = max(LOADING, self._timeout)
        self._stacks.write(f"no step within {limit:.0f} s, in which its model was to be loaded:\n")
        self._stacks.flush()
        faulthandler.dump_traceback_later(limit, exit=True, file=self._stacks)
        return self

    def step(self) -> None:
        """The trial goes on."""
        if self._loads:  # and did not hang
            self._loads = False
            self._stacks.truncate(self._before)
        faulthandler.dump_traceback_later(self._timeout, exit=True, file=self._stacks)

    def pause(self) -> None:
        """Watch again from the next step on."""
        faulthandler.cancel_dump_traceback_later()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._loads:
            self._stacks.truncate(self._before)
        self._stacks.close()
