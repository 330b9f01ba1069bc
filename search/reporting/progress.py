"""What a person sees while a search runs: a line per report, and what goes on before the first."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from threading import Event, Thread
from typing import Protocol

from rich.console import Console

from ..space.config import SearchConfig
from ..space.locations import trial_folder
from ..study.record import TrialRecord
from ..study.study import Study

NOTICED = 1.0
"""Seconds from which on a step is announced: a shorter one would be gone before it is read."""
SILENCE = 10.0
"""Seconds after which a line says that a step goes on; after a minute it is said once a minute."""


Count = Callable[[int, int], None]
"""Takes how many more parts of a step are done, and how many there are."""


class Progress(Protocol):
    """Something that watches a search."""

    def say(self, line: str) -> None:
        """Show a line about the search. A terminal that is gone raises nothing."""

    def step(self, text: str) -> AbstractContextManager[Count]:
        """Show that something goes on that may take a while, until the block ends.

        The block may count what is done.
        """

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        """The trials begin; `slots` says how many can run at the same time."""

    def update(self, number: int) -> None:
        """The study has news of this trial."""

    def close(self) -> None:
        """No trial runs any more."""


class Quiet:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def step(self, text: str) -> AbstractContextManager[Count]:
        """Show nothing."""
        return nullcontext(lambda done, of: None)

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        """Show nothing."""

    def update(self, number: int) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """One plain line per report, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: set[tuple[int, int]] = set()
        """Trial and epoch of each report that was printed; epoch 0 is the trial's end."""
        self._first_epoch = ExitStack()
        """Says what goes on before the first report of this run; closed by it."""

    def say(self, line: str) -> None:
        """Print a line."""
        with suppress(OSError):
            self._console.print(line, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Count]:
        """Print a line once the step lasts, and again after longer silences."""
        counter = Counter()

        def beat(seconds: float) -> None:
            so_far = f": {counter}{seconds:.0f} s so far"
            self.say(text if seconds < SILENCE else text + so_far)

        with heartbeat(beat):
            yield counter.add

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        """Remember what the study holds: a continued search does not print it again."""
        self._study = study
        self._config = config
        self._shown = {(n, e) for n, r in study.records.items() for e in r.reports}
        self._first_epoch.enter_context(heartbeat(self._say_what_runs))

    def _say_what_runs(self, seconds: float) -> None:
        """Print what the trials do, as long as none of them has reported an epoch."""
        running = [r for r in list(self._study.records.values()) if r.running]
        doing = [f"trial {r.number}: {first_news(self._config, r)}" for r in running]
        line = "; ".join(doing) or "Ray Tune is starting"
        self.say(line if seconds < SILENCE else f"{line}, {seconds:.0f} s so far")

    def update(self, number: int) -> None:
        """Print the trial's new reports, and its end."""
        record = self._study.records[number]
        if record.end is not None or any((number, e) not in self._shown for e in record.reports):
            self._first_epoch.close()
        for epoch, report in sorted(record.reports.items()):
            if (number, epoch) not in self._shown:
                self._shown.add((number, epoch))
                duration = "forked" if report.forked else f"{report.seconds:.0f} s"
                self.say(
                    f"trial {number} epoch {epoch} {report.phase} depth {report.depth}: "
                    f"AP {report.map:.3f} best {report.best_map:.3f} ({duration})"
                )
        if record.end is not None and (number, 0) not in self._shown:
            self._shown.add((number, 0))
            ended, trials = len(self._study.ended()), expected_trials(self._config, self._study)
            self.say(f"trial {number} {record.end.value} ({ended} of {trials})")

    def close(self) -> None:
        """Say no more of what goes on."""
        self._first_epoch.close()


def expected_trials(config: SearchConfig, study: Study) -> int:
    """Trials of a search in all; confirming trials count once they are in the study."""
    searched = len(study.searched())
    return max(config.search.trials, searched) + len(study.records) - searched


class Counter:
    """`120 of 500, ` for the parts of a step that are done; empty where none are counted."""

    def __init__(self) -> None:
        self._done = self._of = 0

    def add(self, done: int, of: int) -> None:
        """Count `done` more parts of `of`."""
        self._done += done
        self._of = of

    def __str__(self) -> str:
        return f"{self._done:,} of {self._of:,}, " if self._of else ""


@contextmanager
def heartbeat(beat: Callable[[float], None]) -> Iterator[None]:
    """While the block runs, call `beat` with the seconds so far, from a thread.

    The first time after a second, then every ten, and once a minute from the first minute on.
    """
    over, started = Event(), time.monotonic()

    def run() -> None:
        pause = NOTICED
        while not over.wait(pause):
            seconds = time.monotonic() - started
            beat(seconds)
            period = SILENCE if seconds < 60 - SILENCE / 2 else 60.0
            pause = period - seconds % period

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def first_news(config: SearchConfig, record: TrialRecord) -> str:
    """What a running trial does before its first report."""
    if trial_folder(config.folder, record.number).is_dir():  # its worker makes it
        return "its first epoch is under way"
    return "its worker is loading PyTorch"
