"""Optuna as a Ray Tune searcher: hands out trials of the study, one next step at a time."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from trainer.config import Model, TrainConfig
from trainer.phases import plan
from trainer.training.phase_cache import phase_key

from ..space.space import Space
from ..study.record import End
from ..study.study import Study

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handed:
    """A trial as it is handed out."""

    number: int
    config: TrainConfig
    ends: dict[str, int]
    """By the key of each of its phases, which others may share: the epochs it has at their end."""


MAX_RETRIES = 3
"""Times that a trial whose worker died is started again, from its last checkpoint; and times that
its node may go without one more epoch between."""


class StudySearcher(Searcher):
    """Waiting trials first, then new ones, until the study holds as many as are wanted.

    A trial that needs a phase which another one is in now is held back until that phase is filed,
    and then forks it; who needs nothing of it goes first. `slots` says how many trials the cluster
    holds at once. When all have ended, `confirm` may make more wait, and says whether it did.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        written: TrainConfig,
        *,
        trials: int,
        stages: Callable[[Model], int],
        slots: Callable[[], int],
        confirm: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._study = study
        self._space = space
        self._written = written
        self._trials = trials
        self._stages = stages
        self._slots = slots
        self._confirm = confirm
        self._live: dict[str, Handed] = {}
        """By Tune's trial id."""
        self._held: list[Handed] = []
        """Trials that wait for a phase, in the order they were asked for."""
        self._passed: set[str] = set()
        """Keys of phases that a trial has come to the end of, and so has filed."""
        self._again: list[Handed] = []
        """Trials whose workers died: they come before all others, which may wait for their head."""
        self._deaths: Counter[int] = Counter()
        """Workers that died, by trial number."""
        self._losses: Counter[tuple[int, int]] = Counter()
        """Nodes that went, by trial number and the epochs that it had."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        # asked later, the sampler knows more; without any slot one waits all the same, for Tune
        # looks at nothing else, a request to stop neither, while it has none to wait for
        free = max(1, self._slots()) - len(self._live)
        if free <= 0:
            return None
        if self._again:
            return self._hand_out(trial_id, self._again.pop(0))
        for handed in self._held:
            if not self._is_computed_now(handed):
                self._held.remove(handed)
                return self._hand_out(trial_id, handed)
        # of what is sampled one a free slot, for asked later the sampler knows more
        while len(self._held) < free or self._study.waiting:
            if not self._study.waiting and len(self._study.searched()) >= self._trials:
                if self._live:
                    return None  # how these end decides what is confirmed
                if not self._confirm():
                    # Ray documents this return, and its annotation lacks it
                    return Searcher.FINISHED  # type: ignore[return-value]
            asked = self._study.ask(self._space, self._written, begins=False)
            handed = self._with_ends(*asked)
            if not self._is_computed_now(handed):
                return self._hand_out(trial_id, handed)
            self._held.append(handed)
        return None

    def _hand_out(self, trial_id: str, handed: Handed) -> dict[str, Any]:
        self._study.begin(handed.number)
        self._live[trial_id] = handed
        return {"number": handed.number, "config": handed.config.model_dump(mode="json")}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Results are the scheduler's: it is told of each one, stopped trials' too."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        handed = self._live.pop(trial_id)
        self._note_passed(handed)
        number = handed.number
        if not error or self._study.records[number].end is not None:
            return
        if number in self._study.node_lost:
            self._study.node_lost.discard(number)
            here = number, self._epochs(handed)
            self._losses[here] += 1
            if self._losses[here] > MAX_RETRIES:
                self._study.end(number, End.LOST, "its nodes went, again and again")
                return
            log.warning("trial %d: its node went; it goes on from its last checkpoint", number)
            self._again.append(handed)
            return
        self._deaths[number] += 1
        if self._deaths[number] <= MAX_RETRIES:
            log.warning(
                "trial %d: its worker died; it goes on from its last checkpoint (retry %d of %d)",
                number,
                self._deaths[number],
                MAX_RETRIES,
            )
            self._again.append(handed)
        else:
            self._study.end(number, End.LOST, "its workers died, again and again")

    def _with_ends(self, number: int, config: TrainConfig) -> Handed:
        phases = plan(config.train, self._stages(config.model))
        ends = {phase_key(config, phases[: i + 1]): phase.end for i, phase in enumerate(phases)}
        return Handed(number, config, ends)

    def _is_computed_now(self, wanted: Handed) -> bool:
        """Whether a running trial is in a phase that this one, still without an epoch, needs, or
        will be, and none has filed it before."""
        for other in self._live.values():
            self._note_passed(other)
        return not self._epochs(wanted) and any(
            self._epochs(other) < wanted.ends[key]
            for other in self._live.values()
            for key in (wanted.ends.keys() & other.ends.keys()) - self._passed
        )

    def _note_passed(self, handed: Handed) -> None:
        epochs = self._epochs(handed)
        self._passed |= {key for key, end in handed.ends.items() if end <= epochs}

    def _epochs(self, handed: Handed) -> int:
        return len(self._study.records[handed.number].reports)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts at the start; the study is the state, and stays here

    def save(self, checkpoint_path: str) -> None:
        """The study is the state; Tune's own snapshots hold nothing of it."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
