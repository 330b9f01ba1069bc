"""What a person sees while a search runs: a live table on a terminal, else a line a report."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..ranking.asha import expected_epochs
from ..space.config import SearchConfig
from ..space.space import by_field
from ..study.study import Study, TrialRecord

SHOWN = 12
"""Ended trials in the live table; the rest is counted."""


class Progress(Protocol):
    """Something that watches a search."""

    def say(self, line: str) -> None:
        """A line about the search as a whole. A terminal that is gone raises nothing."""

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        """The trials begin."""

    def update(self, number: int) -> None:
        """A trial has news in the study."""

    def close(self) -> None:
        """No trial runs any more."""


class Quiet:
    """Shows nothing."""

    def say(self, line: str) -> None: ...

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None: ...

    def update(self, number: int) -> None: ...

    def close(self) -> None: ...


class Lines:
    """One plain line a report, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: set[tuple[int, int]] = set()

    def say(self, line: str) -> None:
        with suppress(OSError):
            self._console.print(line, highlight=False, soft_wrap=True)

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        self._study = study
        self._config = config
        # a continued search does not tell again what was told before
        self._shown = {(n, e) for n, r in study.records.items() for e in r.reports}

    def update(self, number: int) -> None:
        record = self._study.records[number]
        for epoch, report in sorted(record.reports.items()):
            if (number, epoch) not in self._shown:
                self._shown.add((number, epoch))
                taken = "forked" if report.forked else f"{report.seconds:.0f} s"
                self.say(
                    f"trial {number} epoch {epoch} {report.phase} depth {report.depth}: "
                    f"AP {report.map:.3f} best {report.best_map:.3f} ({taken})"
                )
        if record.end is not None and (number, 0) not in self._shown:
            self._shown.add((number, 0))
            done, of = len(self._study.ended()), wanted(self._config, self._study)
            self.say(f"trial {number} {record.end.value} ({done} of {of})")

    def close(self) -> None: ...


class LiveTable:
    """A table that redraws itself, with the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, line: str) -> None:
        with suppress(OSError):
            self._console.print(line, highlight=False)

    def start(self, config: SearchConfig, study: Study, slots: Callable[[], int]) -> None:
        self._config = config
        self._study = study
        self._slots = slots
        self._started = time.monotonic()
        self._expected = expected_epochs(config, slots())
        self._before = self._seen = _epochs_run(study)
        self._ends: float | None = None
        """When the search should end, by the epochs run so far."""
        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=1, transient=True
        )
        self._live.start()

    def update(self, number: int) -> None:
        """The table redraws itself once a second."""

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> Group:
        records = list(self._study.records.values())
        shown = [r for r in records if r.running]
        ended = sorted((r for r in records if r.end), key=_best, reverse=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("trial", "phase", "epoch", "AP", "best", "lr", "state"):
            table.add_column(
                heading, justify="right" if heading in {"AP", "best", "lr"} else "left"
            )
        for record in [*shown, *ended[:SHOWN]]:
            table.add_row(*_cells(record, self._whole_epochs(record)))
        hidden = len(ended) - SHOWN
        more = [Text(f"and {hidden} more that ended", style="dim")] if hidden > 0 else []
        return Group(table, *more, Text(self._summary(len(ended)), style="bold"))

    def _whole_epochs(self, record: TrialRecord) -> int:
        written = self._config.train
        head: int = by_field(record.parameters).get("train.head.epochs", written.head.epochs)
        return head + written.unfreeze.epochs

    def _summary(self, ended: int) -> str:
        now = time.monotonic()
        run = _epochs_run(self._study)
        trials = wanted(self._config, self._study)
        text = f"{ended} of {trials} trials, {run} epochs, {_clock(now - self._started)}"
        left = max(0, self._expected - run)
        if run > self._seen:  # estimated anew at each epoch; between, the clock runs down
            self._seen = run
            an_epoch = (now - self._started) / (run - self._before)
            self._ends = now + an_epoch * left
        if self._ends is not None and left:
            text += f", about {_clock(max(0.0, self._ends - now))} to go"
        return text


def wanted(config: SearchConfig, study: Study) -> int:
    """Trials in all, as far as they are known: those that confirm others come last."""
    searched = len(study.searched())
    return max(config.search.trials, searched) + len(study.records) - searched


def _epochs_run(study: Study) -> int:
    records = list(study.records.values())
    return sum(not r.forked for record in records for r in list(record.reports.values()))


def _best(record: TrialRecord) -> float:
    return record.best.map if record.best else -1.0


def _cells(record: TrialRecord, whole: int) -> list[str]:
    last, best = record.last, record.best
    if last is None or best is None:
        state = record.end.value if record.end else "starting"
        return [f"#{record.number}", "", "", "", "", "", state]
    phase = "head" if last.phase == "head" else f"depth {last.depth}"
    head = last.groups.get("head")
    return [
        f"#{record.number}",
        phase,
        f"{last.epoch}/{whole}",
        f"{last.map:.3f}",
        f"{best.map:.3f}",
        f"{head.lr:.1e}" if head else "",
        record.end.value if record.end else "running",
    ]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
