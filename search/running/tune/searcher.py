"""Optuna as a Ray Tune searcher: hands out the trials of the study one by one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from trainer.config import Model, TrainConfig
from trainer.phases import plan
from trainer.training.phase_cache import phase_settings

from ...space.space import Space
from ...study.record import End
from ...study.study import Study
from .retries import MAX_RETRIES, Retries

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that was asked of Optuna, with the phases that it runs through."""

    number: int
    config: TrainConfig
    phase_ends: dict[str, int]
    """Epochs at the end of each phase, by the phase's key. Trials may share phases."""


class StudySearcher(Searcher):
    """Hands out waiting trials first, then new ones, up to the wanted number of trials.

    A trial that needs a phase which another trial is computing is held back until that phase is
    in the phase cache, and then forks it. Trials that do not need it overtake.

    Args:
        study: The record; it holds the trials that wait.
        space: The dimensions to sample.
        base_config: The configuration outside these dimensions.
        trials: Trials in all, without those that confirm others.
        stages: Counts the stages of a model's backbone.
        slots: Counts the trials that the cluster holds at once.
        confirm: Adds confirming trials once all others have ended; returns whether it added any.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        base_config: TrainConfig,
        *,
        trials: int,
        stages: Callable[[Model], int],
        slots: Callable[[], int],
        confirm: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._study = study
        self._space = space
        self._base_config = base_config
        self._trials = trials
        self._stages = stages
        self._slots = slots
        self._confirm = confirm
        self._live: dict[str, PlannedTrial] = {}
        """Trials that were handed out, by Tune's trial id."""
        self._held: list[PlannedTrial] = []
        """Trials held back for a phase, in the order they were asked for."""
        self._finished_phases: set[str] = set()
        """Keys of phases that some trial has finished; the phase cache has them."""
        self._again: list[PlannedTrial] = []
        """Trials that lost their workers. They come first: others may need their head phase."""
        self._retries = Retries()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial, None if none can start now, or FINISHED."""
        # The later a trial is sampled, the more the sampler knows. One trial is handed out even
        # without any slot: with no trial pending, Tune would not even check for a request to stop.
        free = max(1, self._slots()) - len(self._live)
        if free <= 0:
            return None
        if self._again:
            return self._hand_out(trial_id, self._again.pop(0))
        for trial in self._held:
            if not self._needs_a_running_phase(trial):
                self._held.remove(trial)
                return self._hand_out(trial_id, trial)
        return self._suggest_new(trial_id, free)

    def _suggest_new(self, trial_id: str, free: int) -> dict[str, Any] | None:
        """Ask for trials until one can start; at most one sampled trial is held per free slot."""
        while len(self._held) < free or self._study.waiting:
            if not self._study.waiting and len(self._study.searched()) >= self._trials:
                if self._live:
                    return None  # their results decide what is confirmed
                if not self._confirm():
                    # Ray documents this return value, but its annotation lacks it.
                    return Searcher.FINISHED  # type: ignore[return-value]
            trial = self._planned(*self._study.ask(self._space, self._base_config, begins=False))
            if not self._needs_a_running_phase(trial):
                return self._hand_out(trial_id, trial)
            self._held.append(trial)
        return None

    def _hand_out(self, trial_id: str, trial: PlannedTrial) -> dict[str, Any]:
        self._study.begin(trial.number)
        self._live[trial_id] = trial
        return {"number": trial.number, "config": trial.config.model_dump(mode="json")}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler gets every result, also those of stopped trials."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note that a trial has ended, or, with `error`, that it lost its worker."""
        trial = self._live.pop(trial_id)
        self._note_finished_phases(trial)
        if error and self._study.records[trial.number].end is None:
            self._retry_or_give_up(trial)

    def _retry_or_give_up(self, trial: PlannedTrial) -> None:
        number = trial.number
        if number in self._study.node_lost:
            self._study.node_lost.discard(number)
            reason = self._retries.after_node_loss(number, self._epochs(trial))
            loss, count = "its node was lost", ""
        else:
            reason = self._retries.after_death(number)
            loss = "its worker died"
            count = f" (retry {self._retries.deaths(number)} of {MAX_RETRIES})"
        if reason:
            self._study.end(number, End.LOST, reason)
            return
        log.warning("trial %d: %s; it continues from its last checkpoint%s", number, loss, count)
        self._again.append(trial)

    def _planned(self, number: int, config: TrainConfig) -> PlannedTrial:
        phases = plan(config.train, self._stages(config.model))
        ends = {
            phase_settings(config, phases[: i + 1]): phase.end for i, phase in enumerate(phases)
        }
        return PlannedTrial(number, config, ends)

    def _needs_a_running_phase(self, trial: PlannedTrial) -> bool:
        """Whether a trial without an epoch needs a phase that a running trial still computes."""
        for other in self._live.values():
            self._note_finished_phases(other)
        return not self._epochs(trial) and any(
            self._epochs(other) < trial.phase_ends[key]
            for other in self._live.values()
            for key in (trial.phase_ends.keys() & other.phase_ends.keys()) - self._finished_phases
        )

    def _note_finished_phases(self, trial: PlannedTrial) -> None:
        epochs = self._epochs(trial)
        self._finished_phases |= {key for key, end in trial.phase_ends.items() if end <= epochs}

    def _epochs(self, trial: PlannedTrial) -> int:
        return len(self._study.records[trial.number].reports)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts at the start; the study is the state and stays here

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""
