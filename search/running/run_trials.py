"""The trials of a search: Ray Tune runs them, with our searcher, scheduler and stopper."""

import contextlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from ray import tune
from ray.tune.error import TuneError

from clusters.definitions import nodes_after_growth
from trainer.data.dataset import Splits
from trainer.epoch_report import read_report
from trainer.model.checkpoint import load_reports
from trainer.model.outline import count_stages

from ..exports.retention import CheckpointRetention
from ..ranking import confirm
from ..reporting.progress import Progress
from ..space.config import SearchConfig, TrialResources
from ..space.locations import trial_folder
from ..space.space import Space
from ..study.allocation import record_allocation
from ..study.disk import is_disk_full
from ..study.search_state import SearchState
from ..study.study import Study
from .conclude import tracking_timeout
from .publishing import start_tracking
from .resolve_auto import resolved_config
from .trial import run_trial
from .trial_resources import num_threads
from .trials_at_once import cached_for_a_second, slots
from .tune.retries import no_retries_by_tune
from .tune.scheduler import StudyScheduler
from .tune.searcher import StudySearcher
from .tune.signals import sigint_restored
from .tune.stopping import SearchStopper
from .tune.watchers import Watchers


def run_trials(
    config: SearchConfig,
    space: Space,
    data: Splits,
    resources: TrialResources,
    study: Study,
    progress: Progress,
    deadline: float = inf,
) -> str:
    """Run the trials that are left, until `deadline` on the monotonic clock at most.

    Returns:
        Why the search stopped early, for the user; empty if it did not, or was asked to.
    """
    study.state = SearchState.RUNNING
    record_allocation(study, resources)
    retention = CheckpointRetention(config, study)
    watchers = Watchers(start_tracking(config, data, study), progress, retention)
    count_slots = _slots(config, resources)
    scheduler = _scheduler(config, study)
    stopper = _stopper(config, study, count_slots)
    progress.start(config, study, count_slots)
    with tempfile.TemporaryDirectory(prefix="unfreeze-tune-") as scratch:
        tuner = tune.Tuner(
            _trainable(config, data, resources),
            tune_config=_tune_config(
                _searcher(config, space, study, count_slots, progress), scheduler, deadline
            ),
            run_config=_run_config(scratch, stopper, watchers),
        )
        try:
            with sigint_restored():
                tuner.fit()
            _record_dropped_epochs(config, study, scheduler)
            study.state = stopper.state or _state_at_end(config, study, deadline)
            study.release_running()
        except BaseException as error:
            _leave_interrupted(study, retention)
            watchers.close(study, tracking_timeout(study))
            cause = error.__context__
            if isinstance(error, TuneError) and cause is not None and is_disk_full(cause):
                raise cause from None  # Tune keeps nothing but the text of the full disk's error
            raise
    retention()
    watchers.close(study, tracking_timeout(study))  # `conclude` fills in what is missing then
    return stopper.reason


# -- what Tune is made of -------------------------------------------------------------------------


def _slots(config: SearchConfig, resources: TrialResources) -> Callable[[], int]:
    """Counts the trials that may run at once, from the cluster's nodes at the time of the call."""
    # the definition is read once: a user who edits it meanwhile does not end the search
    later = nodes_after_growth(config.cluster)
    return cached_for_a_second(partial(slots, resources, later))


def _scheduler(config: SearchConfig, study: Study) -> StudyScheduler:
    asha = None if config.search.asha == "off" else config.search.asha
    return StudyScheduler(study, asha, config.train.unfreeze.epochs)


def _stopper(config: SearchConfig, study: Study, count_slots: Callable[[], int]) -> SearchStopper:
    return SearchStopper(
        study,
        config.folder,
        config.search.max_failed_trials,
        count_slots,
        grows=config.cluster != "local",
    )


def _searcher(
    config: SearchConfig,
    space: Space,
    study: Study,
    count_slots: Callable[[], int],
    progress: Progress,
) -> StudySearcher:
    return StudySearcher(
        study,
        space,
        resolved_config(config, study),
        trials=config.search.trials,
        stages=count_stages,
        slots=count_slots,
        confirm=partial(confirm.enqueue, config, study, progress.say),
    )


def _trainable(config: SearchConfig, data: Splits, resources: TrialResources) -> Any:
    """What Tune starts on a worker: `run_trial`, with what all trials share, and its resources."""
    return tune.with_resources(
        tune.with_parameters(
            run_trial,
            data=data,
            folder=config.folder,
            threads=num_threads(resources),
            gpu_fraction=resources.gpus_per_trial,
            hang_timeout=config.search.hang_timeout,
            disk_cap=config.search.disk_cap,
        ),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial, **resources.others},
    )


def _tune_config(
    searcher: StudySearcher, scheduler: StudyScheduler, deadline: float
) -> tune.TuneConfig:
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,
        reuse_actors=True,  # a new worker takes seconds to import torch
        time_budget_s=None if deadline == inf else max(1.0, deadline - time.monotonic()),
        trial_dirname_creator=lambda trial: str(trial.config["number"]),
    )


def _run_config(scratch: str, stopper: SearchStopper, watchers: Watchers) -> tune.RunConfig:
    return tune.RunConfig(
        name="tune",
        storage_path=scratch,
        failure_config=no_retries_by_tune(),
        stop=stopper,
        callbacks=[watchers],
        verbose=0,
        progress_reporter=tune.CLIReporter(),  # Tune's for notebooks clears what we show there
    )


# -- when Tune has ended --------------------------------------------------------------------------


def _record_dropped_epochs(config: SearchConfig, study: Study, scheduler: StudyScheduler) -> None:
    """Record the last epochs of trials that were cut short, from their checkpoints.

    Tune drops what they report while it ends; their checkpoints would be ahead of the record.
    """
    for record in list(study.records.values()):
        if record.running:  # waiting trials have no worker; they report when they continue
            for raw in load_reports(trial_folder(config.folder, record.number)):
                if scheduler.take(record.number, read_report(raw)):
                    break


def _state_at_end(config: SearchConfig, study: Study, deadline: float) -> SearchState:
    if confirm.is_complete(config, study):
        return SearchState.DONE
    over = time.monotonic() >= deadline
    return SearchState.OUT_OF_TIME if over else SearchState.INTERRUPTED


def _leave_interrupted(study: Study, retention: Callable[[], None]) -> None:
    """Leave a search so that the same command continues it."""
    with contextlib.suppress(Exception):  # the disk may be full, the database gone
        retention()
        study.state = SearchState.INTERRUPTED
        study.release_running()
