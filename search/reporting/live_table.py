"""The live table of a search, on a terminal or in a notebook."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ..ranking.forecast import expected_epochs
from ..ranking.trial_order import best_map
from ..space.config import SearchConfig
from ..space.space import values_by_field
from ..study.record import TrialRecord
from ..study.study import Study
from .console import Prose
from .progress import NOTICED, Count, Counter, Lines, expected_trials, first_news, heartbeat

NOTEBOOK_WIDTH = 100
"""Columns of the table in a notebook."""
ENDED_SHOWN = 12
"""Ended trials in the live table; the others are counted."""


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
        started, spinner, counter = time.monotonic(), Spinner("dots"), Counter()

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

    rich's live display needs a widget that many notebooks lack.
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
        self._redraws.enter_context(heartbeat(self._redraw))

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


def _epochs_run(study: Study) -> int:
    records = list(study.records.values())
    return sum(not r.forked for record in records for r in list(record.reports.values()))


def _cells(config: SearchConfig, record: TrialRecord, epochs: int) -> list[str]:
    last, best = record.last, record.best
    if last is None or best is None:
        state = record.end.value if record.end else first_news(config, record)
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
