"""What a person sees while a search runs: a live table on a terminal, else a line per report."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from threading import Event, Thread
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ..ranking.forecast import expected_epochs
from ..ranking.trial_order import best_map
from ..space.config import SearchConfig
from ..space.locations import trial_folder
from ..space.space import values_by_field
from ..study.record import TrialRecord
from ..study.study import Study
from .console import Prose

NOTEBOOK_WIDTH = 100
"""Columns of the table in a notebook."""
ENDED_SHOWN = 12
"""Ended trials in the live table; the others are counted."""
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
        counter = _Counter()

        def beat(seconds: float) -> None:
            so_far = f": {counter}{seconds:.0f} s so far"
            self.say(text if seconds < SILENCE else text + so_far)

        with _heartbeat(beat):
            yield counter.add

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        """Remember what the study holds: a continued search does not print it again."""
        self._study = study
        self._config = config
        self._shown = {(n, e) for n, r in study.records.items() for e in r.reports}
        self._first_epoch.enter_context(_heartbeat(self._say_what_runs))

    def _say_what_runs(self, seconds: float) -> None:
        """Print what the trials do, as long as none of them has reported an epoch."""
        running = [r for r in list(self._study.records.values()) if r.running]
        doing = [f"trial {r.number}: {_first_news(self._config, r)}" for r in running]
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


class LiveTable:
    """A table that redraws itself, with the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """Print a line above the table."""
        with suppress(OSError):
            self._console.print(Prose(line), soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Count]:
        """Show a line with the seconds so far; it stays if the step took a while."""
        started, spinner, counter = time.monotonic(), Spinner("dots"), _Counter()

        def shown() -> Spinner:
            spinner.update(text=f"{text} ({counter}{time.monotonic() - started:.0f} s)")
            return spinner

        live = Live(console=self._console, get_renderable=shown, transient=True)
        with suppress(OSError):
            live.start()
        try:
            yield counter.add
        finally:
            with suppress(OSError):
                live.stop()
        if (seconds := time.monotonic() - started) >= NOTICED:
            self.say(f"{text} ({seconds:.0f} s)")

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        """Draw the table, and from now on once a second."""
        self._config = config
        self._study = study
        self._started = time.monotonic()
        self._expected = expected_epochs(config, slots())
        self._epochs_at_start = self._epochs_seen = _epochs_run(study)
        self._ends_at: float | None = None
        """When the search should end, estimated from the epochs run so far."""
        self._draw()

    def _draw(self) -> None:
        """Put the table on the screen."""
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=1, transient=True
        )
        self._live.start()

    def update(self, number: int) -> None:
        """Do nothing: the table redraws itself once a second."""

    def close(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> Group:
        records = list(self._study.records.values())
        running = [record for record in records if record.running]
        ended = sorted((record for record in records if record.end), key=best_map, reverse=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("trial", "phase", "epoch", "AP", "best", "lr", "state"):
            table.add_column(
                heading, justify="right" if heading in {"AP", "best", "lr"} else "left"
            )
        for record in [*running, *ended[:ENDED_SHOWN]]:
            table.add_row(*_cells(self._config, record, self._epoch_budget(record)))
        hidden = len(ended) - ENDED_SHOWN
        more = [Text(f"and {hidden} more that ended", style="dim")] if hidden > 0 else []
        return Group(table, *more, Text(self._summary(len(ended)), style="bold"))

    def _epoch_budget(self, record: TrialRecord) -> int:
        """Epochs of a trial that is not stopped, the head phase included."""
        train = self._config.train
        head: int = values_by_field(record.parameters).get("train.head.epochs", train.head.epochs)
        return head + train.unfreeze.epochs

    def _summary(self, ended: int) -> str:
        now = time.monotonic()
        run = _epochs_run(self._study)
        trials = expected_trials(self._config, self._study)
        text = f"{ended} of {trials} trials, {run} epochs, {_clock(now - self._started)}"
        left = max(0, self._expected - run)
        if run > self._epochs_seen:  # estimated anew at each epoch; between, the clock runs down
            self._epochs_seen = run
            epoch_seconds = (now - self._started) / (run - self._epochs_at_start)
            self._ends_at = now + epoch_seconds * left
        if self._ends_at is not None and left and self._ends_at - now >= 1:
            text += f", about {_clock(self._ends_at - now)} to go"
        return text


class NotebookTable(LiveTable):
    """The live table in the output of a notebook's cell, drawn again at each report.

    rich's own live display needs a widget that many notebooks lack.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._lines = Lines(console)
        self._redraws = ExitStack()

    def say(self, line: str) -> None:
        """Print a line."""
        self._lines.say(line)

    @contextmanager
    def step(self, text: str) -> Iterator[Count]:
        """Print a line once the step takes a while, and again as it goes on."""
        with self._lines.step(text) as count:
            yield count

    def _draw(self) -> None:
        from IPython.display import display

        self._output = display(self._page(), display_id=True)  # type: ignore[no-untyped-call]
        self._redraws.enter_context(_heartbeat(self._redraw))

    def _redraw(self, seconds: float = 0) -> None:
        self._output.update(self._page())

    def update(self, number: int) -> None:
        """Draw the table again."""
        self._redraw()

    def close(self) -> None:
        """Leave the table in the notebook, as the trials ended."""
        self._redraws.close()
        self._redraw()

    def _page(self) -> Any:
        from IPython.display import Pretty

        text = io.StringIO()
        Console(file=text, width=NOTEBOOK_WIDTH, force_jupyter=False).print(self._render())
        return Pretty(text.getvalue())  # type: ignore[no-untyped-call]


def expected_trials(config: SearchConfig, study: Study) -> int:
    """Trials of a search in all; confirming trials count once they are in the study."""
    searched = len(study.searched())
    return max(config.search.trials, searched) + len(study.records) - searched


def _epochs_run(study: Study) -> int:
    records = list(study.records.values())
    return sum(not r.forked for record in records for r in list(record.reports.values()))


class _Counter:
    """`120 of 500, ` for the parts of a step that are done; empty where none are counted."""

    def __init__(self) -> None:
        self._done = self._of = 0

    def add(self, done: int, of: int) -> None:
        self._done += done
        self._of = of

    def __str__(self) -> str:
        return f"{self._done:,} of {self._of:,}, " if self._of else ""


@contextmanager
def _heartbeat(beat: Callable[[float], None]) -> Iterator[None]:
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


def _first_news(config: SearchConfig, record: TrialRecord) -> str:
    """What a running trial does before its first report."""
    if trial_folder(config.folder, record.number).is_dir():  # its worker makes it
        return "its first epoch is under way"
    return "its worker is loading PyTorch"


def _cells(config: SearchConfig, record: TrialRecord, epochs: int) -> list[str]:
    last, best = record.last, record.best
    if last is None or best is None:
        state = record.end.value if record.end else _first_news(config, record)
        return [f"#{record.number}", "", "", "", "", "", state]
    phase = "head" if last.phase == "head" else f"depth {last.depth}"
    head = last.groups.get("head")
    return [
        f"#{record.number}",
        phase,
        f"{last.epoch}/{epochs}",
        f"{last.map:.3f}",
        f"{best.map:.3f}",
        f"{head.lr:.1e}" if head else "",
        record.end.value if record.end else "running",
    ]


def _clock(seconds: float) -> str:
    """`3:05`, or `1:02:03` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
