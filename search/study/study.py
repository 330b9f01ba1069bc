"""The record of a search: one Optuna study, which holds everything that happened.

It holds the parameters, every epoch's report and the true end of every trial. All else follows
from it: rungs, MLflow's rows, the table, what to do next. Only one process writes: the driver.
"""

import contextlib
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from trainer.config import TrainConfig
from trainer.epoch_report import EpochReport, read_report
from trainer.text.escaping import printable_lines
from trainer.text.redaction import redacted

from ..space.space import Space, Values, with_values
from .optuna_internals import enqueued_parameters, trial_id
from .record import End, TrialRecord
from .search_state import SearchFacts

OPTUNA_STATES = {
    End.FINISHED: TrialState.COMPLETE,
    End.PRUNED: TrialState.PRUNED,
    # pruned, because the sampler learns from pruned trials; see INFEASIBLE
    End.DIVERGED: TrialState.PRUNED,
    End.OUT_OF_MEMORY: TrialState.PRUNED,
    # says nothing about the configuration: the sampler ignores failed trials
    End.ERROR: TrialState.FAIL,
    End.LOST: TrialState.FAIL,
}
"""The state that each end has in Optuna."""
INFEASIBLE = {End.DIVERGED, End.OUT_OF_MEMORY}
"""Ends that break a constraint, so that the sampler avoids such configurations."""
BEGAN = "began"
"""Attribute of a trial: when its first worker got it, seconds since 1970."""
EPOCH = "epoch "
"""Begins the attribute of a trial that holds an epoch's report."""


class Study(SearchFacts):
    """An Optuna study with this project's rules about what is written when.

    Args:
        storage: Where Optuna keeps the study.
        name: The study's name in the storage.
        seed: Seed of the sampler.
        trials: How many trials the search has in all.
        read_only: Whether the study must exist and is only read.
        one_step: See the attribute.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        seed: int = 0,
        trials: int = 1,
        read_only: bool = False,
        one_step: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        _silence_optuna()
        self.storage = storage
        self.one_step = one_step
        """A block in which the storage may collect writes and write them at its end."""
        self.seed = seed
        self.startup_trials = min(10, trials // 3)
        """How many trials are sampled at random before TPE begins."""
        self.full_disk = ""
        """The error of a worker whose disk is full."""
        self.node_lost: set[int] = set()
        """Trials whose node went away, which is not their fault."""
        self.optuna = (
            optuna.load_study(study_name=name, storage=storage)
            if read_only
            else optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
        )
        self.records = {t.number: _read_record(t) for t in self._trials()}
        """By trial number."""
        self._ids = {t.number: trial_id(t) for t in self._trials()}

    def _trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    # -- what is to be tried ---------------------------------------------------------------------

    def release_running(self) -> None:
        """Set every trial without an end back to waiting, so that a worker gets it again."""
        for number, record in self.records.items():
            if record.end is None:
                self.storage.set_trial_state_values(self._ids[number], TrialState.WAITING)
                record.running = False

    def enqueue(
        self, parameters: Values, origin: str, confirms: int | None = None, seed: int | None = None
    ) -> None:
        """Add a trial with given parameters; it waits for a worker.

        Args:
            parameters: By Optuna's parameter names.
            origin: See TrialRecord.
            confirms: Number of the trial that it confirms.
            seed: Its seed, if not the configuration's.
        """
        attrs = {"origin": origin, "confirms": confirms, "seed": seed}
        with self.one_step():
            self.optuna.enqueue_trial(
                parameters, user_attrs={k: v for k, v in attrs.items() if v is not None}
            )
        trial = self._trials()[-1]
        self._ids[trial.number] = trial_id(trial)
        self.records[trial.number] = _read_record(trial)

    def ask(
        self, space: Space, base_config: TrainConfig, *, begins: bool = True
    ) -> tuple[int, TrainConfig]:
        """Hand out the first waiting trial, else a new one from the sampler.

        Args:
            space: What is searched.
            base_config: The configuration that the trial's parameters change.
            begins: Whether a worker gets the trial now. If not, call `begin` later.

        Returns:
            The trial's number and its configuration.
        """
        from ..space.sampling import suggest  # imports timm, which reading a study does not need

        self.optuna.sampler = self._sampler((*self.waiting, len(self.records))[0])
        with self.one_step():
            trial = self.optuna.ask()
            values = suggest(space, base_config, trial)
            self._ids[trial.number] = trial_id(trial)
            record = self.records.setdefault(
                trial.number, TrialRecord(trial.number, "sampled", dict(trial.params))
            )
            record.parameters = dict(trial.params)
            if begins:
                self.begin(trial.number)
        if record.seed is not None:
            values["train.seed"] = record.seed
        return trial.number, with_values(base_config, values)

    def begin(self, number: int) -> None:
        """Record that a worker has the trial; the time is that of its first worker."""
        record = self.records[number]
        record.running = True
        if record.started is None:
            record.started = time.time()
            self.storage.set_trial_user_attr(self._ids[number], BEGAN, record.started)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        # a new one for each trial: a continued search samples what an unbroken one would have
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=self.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
        )

    @property
    def waiting(self) -> list[int]:
        """Numbers of the trials that wait for a worker, in order."""
        return [
            t.number for t in self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        ]

    # -- what happened ---------------------------------------------------------------------------

    def record(self, number: int, report: EpochReport, stop: bool = False) -> bool:
        """Write an epoch's report, once.

        Args:
            number: Of the trial.
            report: Of the epoch.
            stop: Whether ASHA stops the trial here. The report and this are one write.

        Returns:
            False if the epoch's report is already recorded.
        """
        record = self.records[number]
        if report.epoch in record.reports:
            return False
        now = time.time()
        content = {"at": now, "stop": stop, **asdict(report)}
        with self.one_step():
            self.storage.set_trial_user_attr(self._ids[number], f"{EPOCH}{report.epoch}", content)
            if report.unfreeze_epoch:
                self.storage.set_trial_intermediate_value(
                    self._ids[number], report.unfreeze_epoch, record.best_with(report)
                )
        record.times[report.epoch] = now  # before the report: readers of a report read its time
        record.reports[report.epoch] = report
        if stop:
            record.stopped_at = report.unfreeze_epoch
        return True

    def end(self, number: int, end: End, text: str = "") -> None:
        """Write the true end of a trial, once, and tell the sampler.

        Args:
            number: Of the trial.
            end: How it ended. A second end is ignored.
            text: What went wrong.
        """
        record = self.records[number]
        if record.end is not None:
            return
        text = printable_lines(redacted(text))  # an error may contain a URL or a file
        value = _final_value(record) if end is End.FINISHED else None
        with self.one_step():
            trial = optuna.Trial(self.optuna, self._ids[number])
            trial.set_user_attr("end", end.value)
            if text:
                trial.set_user_attr("text", text)
            if end in INFEASIBLE:
                trial.set_constraint("feasible", 1.0)
            self.optuna.tell(trial, value, state=OPTUNA_STATES[end], skip_if_finished=True)
        record.end, record.text, record.ended = end, text, time.time()
        record.running = False

    def ended(self) -> list[TrialRecord]:
        """Trials that have an end."""
        return [r for r in list(self.records.values()) if r.end is not None]

    def searched(self) -> list[TrialRecord]:
        """Trials of the search itself, without those that confirm others."""
        return [r for r in list(self.records.values()) if r.confirms is None]


def _final_value(record: TrialRecord) -> float | None:
    """The value of a finished trial in Optuna: its best AP, of unfreeze epochs if it has any."""
    if record.unfreeze_epoch:
        return record.best_until(record.unfreeze_epoch)
    return record.best.map if record.best else None


def _read_record(trial: FrozenTrial) -> TrialRecord:
    attrs = trial.user_attrs
    record = TrialRecord(
        trial.number,
        attrs.get("origin", "sampled"),
        {**enqueued_parameters(trial), **trial.params},
        started=_start_time(trial),
        ended=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
        end=End(attrs["end"]) if "end" in attrs and trial.state.is_finished() else None,
        text=attrs.get("text", ""),
        confirms=attrs.get("confirms"),
        seed=attrs.get("seed"),
    )
    for key, content in attrs.items():
        if key.startswith(EPOCH):
            raw = dict(content)
            at, stop = raw.pop("at"), raw.pop("stop")
            report = read_report(raw)
            record.reports[report.epoch] = report
            record.times[report.epoch] = at
            if stop:
                record.stopped_at = report.unfreeze_epoch
    return record


def _start_time(trial: FrozenTrial) -> float | None:
    """When a worker first had a trial; older studies say only when it was asked for."""
    attrs = trial.user_attrs
    ran = trial.state.is_finished() or any(key.startswith(EPOCH) for key in attrs)
    asked = trial.datetime_start.timestamp() if trial.datetime_start and ran else None
    return attrs.get(BEGAN, asked)


def _silence_optuna() -> None:
    optuna.logging.set_verbosity(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
