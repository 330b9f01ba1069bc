"""The record of a search: one Optuna study, which holds everything that happened.

Parameters, every epoch's report and the true end of every trial are in it; all else (rungs, the
MLflow rows, the table, what to do next) follows from it. One process, the driver, writes.
"""

import contextlib
import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from trainer.config import BadInput, TrainConfig
from trainer.epoch_report import EpochReport, read_report
from trainer.text.escaping import printable_lines
from trainer.text.redaction import redacted

from ..space.space import Space, Values, apply
from .journal import JOURNAL, open_journal, reading


class End(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"
    PRUNED = "pruned"
    """Stopped by ASHA."""
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    ERROR = "error"
    LOST = "lost"
    """Its workers died too often."""


STATES = {
    End.FINISHED: TrialState.COMPLETE,
    End.PRUNED: TrialState.PRUNED,
    # told as pruned, so that the sampler learns from them, and as infeasible, so that it stays away
    End.DIVERGED: TrialState.PRUNED,
    End.OUT_OF_MEMORY: TrialState.PRUNED,
    # says nothing of the configuration: the sampler leaves failed trials out
    End.ERROR: TrialState.FAIL,
    End.LOST: TrialState.FAIL,
}
BEGAN = "began"
"""Attribute of a trial: seconds since 1970."""
INFEASIBLE = {End.DIVERGED, End.OUT_OF_MEMORY}


@dataclass
class TrialRecord:
    """What the study knows of one trial."""

    number: int
    """Its only identity."""
    origin: str
    """`as written`, `all unfrozen`, `first` or `sampled`."""
    parameters: Values
    """Under Optuna's names."""
    started: float | None = None
    """When its first worker had it, seconds since 1970; None while it waits."""
    ended: float | None = None
    reports: dict[int, EpochReport] = field(default_factory=dict)
    """By epoch."""
    times: dict[int, float] = field(default_factory=dict)
    """When each report came, seconds since 1970."""
    end: End | None = None
    """None while it runs or waits."""
    text: str = ""
    """What went wrong."""
    running: bool = False
    """Whether a worker has it, as far as this driver knows."""
    stopped_at: int | None = None
    """Unfreeze epoch of the rung at which ASHA stopped it."""
    confirms: int | None = None
    """Number of the trial whose configuration it trains again."""
    seed: int | None = None
    """Its seed, where it confirms another; else the configuration's."""

    @property
    def last(self) -> EpochReport | None:
        return self.reports[max(self.reports)] if self.reports else None

    @property
    def best(self) -> EpochReport | None:
        """The first epoch of the best AP, which is the one that `best.pt` has."""
        return max(list(self.reports.values()), key=lambda r: (r.map, -r.epoch), default=None)

    @property
    def unfreeze_epoch(self) -> int:
        """Unfreeze epochs behind it."""
        return self.last.unfreeze_epoch if self.last else 0

    def best_until(self, unfreeze_epoch: int) -> float | None:
        """Best AP of the unfreeze epochs up to this one, or None where it has not come so far.

        What came before them is the head phase, which is the same for all.
        """
        if self.unfreeze_epoch < unfreeze_epoch:
            return None
        return max(r.map for r in self.reports.values() if 1 <= r.unfreeze_epoch <= unfreeze_epoch)

    def best_with(self, report: EpochReport) -> float:
        """Best AP of the unfreeze epochs up to this one, which is not recorded yet."""
        so_far = self.best_until(self.unfreeze_epoch) if self.unfreeze_epoch else None
        return max(report.map, so_far or 0.0)


class Study:
    """An Optuna study with the project's own rules about what is written when."""

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        seed: int = 0,
        trials: int = 1,
        read_only: bool = False,
        together: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        _hush()
        self.storage = storage
        self.together = together
        """Within it the storage may wait with what is written until the end, and write it in one
        go."""
        self.seed = seed
        self.startup = min(10, trials // 3)
        """Trials sampled at random before TPE begins."""
        self.full_disk = ""
        """What a worker said that found the disk full."""
        self.node_lost: set[int] = set()
        """Trials whose node went: no fault of theirs."""
        self.optuna = (
            optuna.load_study(study_name=name, storage=storage)
            if read_only
            else optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
        )
        self.records = {t.number: _read(t) for t in self.optuna.get_trials(deepcopy=False)}
        self._ids = {t.number: t._trial_id for t in self.optuna.get_trials(deepcopy=False)}

    # -- what is to be tried ---------------------------------------------------------------------

    def release_running(self) -> None:
        """Put trials that an earlier driver left running back among those that wait."""
        for number, record in self.records.items():
            if record.end is None:
                self.storage.set_trial_state_values(self._ids[number], TrialState.WAITING)
                record.running = False

    def enqueue(
        self, parameters: Values, origin: str, confirms: int | None = None, seed: int | None = None
    ) -> None:
        """Make a trial of given parameters wait for its turn."""
        attrs = {"origin": origin, "confirms": confirms, "seed": seed}
        with self.together():
            self.optuna.enqueue_trial(
                parameters, user_attrs={k: v for k, v in attrs.items() if v is not None}
            )
        trial = self.optuna.get_trials(deepcopy=False)[-1]
        self._ids[trial.number] = trial._trial_id
        self.records[trial.number] = _read(trial)

    def ask(
        self, space: Space, written: TrainConfig, *, begins: bool = True
    ) -> tuple[int, TrainConfig]:
        """Hand out the first waiting trial, or a new one from the sampler: number and config. Where
        it does not begin yet, `begin` says when."""
        from ..space.sampling import suggest  # timm, which reading a study can do without

        self.optuna.sampler = self._sampler((*self.waiting, len(self.records))[0])
        with self.together():
            trial = self.optuna.ask()
            values = suggest(space, written, trial)
            self._ids[trial.number] = trial._trial_id
            record = self.records.setdefault(
                trial.number, TrialRecord(trial.number, "sampled", dict(trial.params))
            )
            record.parameters = dict(trial.params)
            if begins:
                self.begin(trial.number)
        if record.seed is not None:
            values["train.seed"] = record.seed
        return trial.number, apply(written, values)

    def begin(self, number: int) -> None:
        """Write that a trial that was asked for is with a worker, from its first one on."""
        record = self.records[number]
        record.running = True
        if record.started is None:
            record.started = time.time()
            self.storage.set_trial_user_attr(self._ids[number], BEGAN, record.started)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        # made anew for each trial: a continued search samples what an unbroken one would have
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=self.startup,
            multivariate=True,
            group=True,
            constant_liar=True,
        )

    @property
    def waiting(self) -> list[int]:
        """Numbers of the trials that have no end and are not with a worker, in order."""
        return [
            t.number for t in self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        ]

    # -- what happened ---------------------------------------------------------------------------

    def record(self, number: int, report: EpochReport, stop: bool = False) -> bool:
        """Write an epoch's report, once; False when it was there already.

        `stop` says that ASHA stops the trial here: one write holds both.
        """
        record = self.records[number]
        if report.epoch in record.reports:
            return False
        now = time.time()
        content = {"at": now, "stop": stop, **asdict(report)}
        with self.together():
            self.storage.set_trial_user_attr(self._ids[number], f"epoch {report.epoch}", content)
            if report.unfreeze_epoch:
                self.storage.set_trial_intermediate_value(
                    self._ids[number], report.unfreeze_epoch, record.best_with(report)
                )
        record.times[report.epoch] = now  # first: who reads a report reads its time
        record.reports[report.epoch] = report
        if stop:
            record.stopped_at = report.unfreeze_epoch
        return True

    def end(self, number: int, end: End, text: str = "") -> None:
        """Write the true end of a trial, once, and tell the sampler."""
        record = self.records[number]
        if record.end is not None:
            return
        text = printable_lines(redacted(text))  # an error may name a URL, or a file
        best = record.best
        value = None
        if best and end is End.FINISHED:  # as was told of its epochs: what unfreezing came to
            value = record.best_until(record.unfreeze_epoch) if record.unfreeze_epoch else best.map
        with self.together():
            trial = optuna.Trial(self.optuna, self._ids[number])
            trial.set_user_attr("end", end.value)
            if text:
                trial.set_user_attr("text", text)
            if end in INFEASIBLE:
                trial.set_constraint("feasible", 1.0)
            self.optuna.tell(trial, value, state=STATES[end], skip_if_finished=True)
        record.end, record.text, record.ended = end, text, time.time()
        record.running = False

    # -- about the search as a whole -------------------------------------------------------------

    def set(self, key: str, value: Any) -> None:
        """Write a fact about the search."""
        self.optuna.set_user_attr(key, value)

    def get(self, key: str, default: Any = None) -> Any:
        """Read a fact about the search."""
        return self.optuna.user_attrs.get(key, default)

    def ended(self) -> list[TrialRecord]:
        """Trials that have an end."""
        return [r for r in list(self.records.values()) if r.end is not None]

    def searched(self) -> list[TrialRecord]:
        """Trials of the search itself, without those that confirm others."""
        return [r for r in list(self.records.values()) if r.confirms is None]


def open_study(folder: Path, name: str, uri: str | None = None, **settings: Any) -> Study:
    """The study of a search, made when it is not there: in its folder, or in a database."""
    folder.mkdir(parents=True, exist_ok=True)
    if uri is not None:
        return Study(_database(uri), name, **settings)
    with reading(folder / JOURNAL):
        journal = open_journal(folder / JOURNAL)
        return Study(JournalStorage(journal), name, together=journal.together, **settings)


def read_study(folder: Path, name: str, uri: str | None = None) -> Study:
    """The study of a search for reading, from any process. Raises FileNotFoundError."""
    if uri is not None:
        try:
            return Study(_database(uri), name, read_only=True)
        except KeyError as error:  # Optuna's word for a study that is not there
            raise FileNotFoundError(f"no study {name} in {redacted(uri)}") from error
    journal = folder / JOURNAL
    if not journal.is_file():
        raise FileNotFoundError(f"no search in {folder}")
    with reading(journal):
        return Study(JournalStorage(JournalFileBackend(str(journal))), name, read_only=True)


def _database(uri: str) -> BaseStorage:
    try:
        return optuna.storages.get_storage(uri)
    except (ImportError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput([f"study: {redacted(uri)} cannot be opened: {reason}"]) from error


def _read(trial: FrozenTrial) -> TrialRecord:
    attrs = trial.user_attrs
    record = TrialRecord(
        trial.number,
        attrs.get("origin", "sampled"),
        {**trial.system_attrs.get("fixed_params", {}), **trial.params},
        started=_began(trial),
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        end=End(attrs["end"]) if "end" in attrs and trial.state.is_finished() else None,
        text=attrs.get("text", ""),
        confirms=attrs.get("confirms"),
        seed=attrs.get("seed"),
    )
    for key, content in attrs.items():
        if key.startswith("epoch "):
            raw = dict(content)
            at, stop = raw.pop("at"), raw.pop("stop")
            report = read_report(raw)
            record.reports[report.epoch] = report
            record.times[report.epoch] = at
            if stop:
                record.stopped_at = report.unfreeze_epoch
    return record


def _began(trial: FrozenTrial) -> float | None:
    """When a trial was first with a worker; in older studies when it was asked for, if it ran."""
    attrs = trial.user_attrs
    ran = trial.state.is_finished() or any(key.startswith("epoch ") for key in attrs)
    asked = trial.datetime_start.timestamp() if trial.datetime_start and ran else None
    return attrs.get(BEGAN, asked)


def to_json(report: EpochReport) -> str:
    """A report on its way from a worker."""
    return json.dumps(asdict(report))


def from_json(text: str) -> EpochReport:
    """A report as it came from a worker."""
    return read_report(json.loads(text))


def _hush() -> None:
    optuna.logging.set_verbosity(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
