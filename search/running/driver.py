"""One search from start to end: check, join the cluster, let Tune run trials, export the best."""

import contextlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.error import TuneError
from ray.tune.execution import class_cache

from clusters import connect
from clusters import preflight as node_preflight
from trainer.config import BadInput, TrainConfig
from trainer.data.canvas import cache_folder
from trainer.data.canvas_store import open_store
from trainer.data.dataset import Splits
from trainer.data.loading import given, load
from trainer.epoch_report import read_report
from trainer.model.checkpoint import load_reports
from trainer.model.detectors import count_stages
from trainer.training.probe import memory_share

from ..exports.retention import Tidying
from ..exports.winner import export_winner
from ..ranking import confirm
from ..ranking.costs import costs
from ..ranking.ranking import rank, winner
from ..ranking.results import SearchResult
from ..reporting.progress import Progress, Quiet
from ..space.config import Resources, SearchConfig
from ..space.locations import absolute, tracking_uri, trial_folder
from ..space.space import Space, read_space
from ..space.space_validation import reachable
from ..space.validation import check
from ..study.allocation import note_share
from ..study.disk import is_full
from ..study.facts import SearchState
from ..study.lock import locked, withdraw_request
from ..study.opening import open_search, refuse_changes, require_models
from ..study.study import Study
from ..tracking.registry import register
from ..tracking.tracking import reason as why
from . import preflight
from .auto import is_settled, record_settled, settle, settled_config
from .callbacks import Watchers, draw_data, start_tracking, try_report
from .resources import (
    describe_slots,
    divided,
    every_second,
    largest_trial,
    share_of_a_trial,
    slots,
    threads_of,
)
from .scheduler import StudyScheduler
from .searcher import StudySearcher
from .stopping import Stopping
from .trial import run_trial

log = logging.getLogger(__name__)

PACKAGES = [Path(__file__).parents[2] / name for name in ("trainer", "search", "clusters")]
PATIENCE, PATIENCE_A_TRIAL = 60.0, 0.25
"""Seconds that an ended search waits for MLflow to take the last rows: at least, and for each trial
more, since every row is looked at once more."""


def run(config: SearchConfig, progress: Progress | None = None) -> SearchResult:
    """Run a search, or continue it where its folder holds one, and export its winner.

    Raises BadInput before anything is started or written, CannotConnect, or Busy when another
    process runs this search.
    """
    deadline = time.monotonic() + (config.search.time_budget or inf)
    config = absolute(config, Path())
    errors = check(config)
    if errors:
        raise BadInput(errors)
    progress = progress or Quiet()
    space = read_space(config.space)
    # what is made here, the nodes of a cluster must find too
    pictures = given(config.data, cache_folder() if config.cluster == "local" else config.storage)
    data = load(pictures, cache_folder(), config.folder, model=config.model)
    for note in data.notes:
        progress.say(note)
    refuse_changes(config)
    if config.cluster == "local":  # find what cannot be decoded before anything starts
        for split in (data.train, data.val):
            open_store(split, config.model.image_size, cache_folder() / "canvases")

    with contextlib.ExitStack() as held:
        held.enter_context(_sigterm_as_sigint())
        study = None
        if (config.folder / "search.yaml").is_file():
            study = held.enter_context(_opened(config, space, data))
            if confirm.is_complete(config, study):  # nothing to do, and no cluster to join for it
                study.state = SearchState.DONE
                return conclude(config, space, data, study, progress)
        configure_tune()
        with connect.connected(config.cluster, PACKAGES):
            held.enter_context(_sigterm_as_sigint())  # Ray has set a handler of its own
            if config.cluster != "local":
                _preflight(config, data, begun=study is not None)
            share = _share_of_gpus(config, space, data, share_of_a_trial(config), progress)
            progress.say(describe_slots(share, config.cluster))
            if study is None:
                _require_models(config, space, data, share)
                study = held.enter_context(_opened(config, space, data))
            _settle(config, data, share, study, progress)
            if (begun := len(study.searched())) > config.search.trials:
                progress.say(f"search.trials is {config.search.trials}: the {begun} begun go on")
            draw_data(config, data)
            try:
                reason = run_trials(config, space, data, share, study, progress, deadline)
            finally:
                progress.close()
        return conclude(config, space, data, study, progress, reason)


# -- before -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(config: SearchConfig, space: Space, data: Splits) -> Iterator[Study]:
    """The study of a search, whose folder nobody else runs meanwhile."""
    with locked(config.folder):  # makes the folder, the first thing there
        withdraw_request(config.folder)
        yield open_search(config, space, data)


def _preflight(config: SearchConfig, data: Splits, begun: bool) -> None:
    """Ask every node whether it could run a trial. Raises BadInput with what could not be."""
    token = preflight.write_token(config.storage)
    try:
        wanted = preflight.node_checks(config.storage, token, _files(config, data))
        errors = node_preflight.failures(wanted)
    finally:
        (config.storage / token).unlink(missing_ok=True)
    tracking = preflight.tracking_failure(tracking_uri(config.tracking))
    if tracking and begun:  # a search that went on at night is not ended for its rows
        log.warning("%s", tracking)
    elif tracking:
        errors.append(tracking)
    if errors:
        raise BadInput(errors)


def _files(config: SearchConfig, data: Splits) -> list[Path]:
    """One picture of each folder, and the weights, where they are a file."""
    pictures = [p.file for split in (data.train, data.val) for p in split.pictures]
    files = list({file.parent: file for file in pictures}.values())
    weights = Path(config.model.weights)
    return [*files, *([weights] if weights.is_file() else [])]


def _share_of_gpus(
    config: SearchConfig, space: Space, data: Splits, share: Resources, progress: Progress
) -> Resources:
    """What a trial gets where `auto` gave it a GPU: of one as much as its memory asks for, measured
    each time that a driver starts, for the GPUs may be others."""
    largest = largest_trial(config, space) if config.resources == "auto" else None
    if not share.gpus_per_trial or largest is None:
        return share
    progress.say("measuring how much of a GPU's memory the largest trial takes")
    # its worker, which keeps that memory, ends with it
    ask = ray.remote(max_calls=1)(memory_share).options(
        num_cpus=share.cpus_per_trial, num_gpus=share.gpus_per_trial, resources=share.others
    )
    taken = ray.get(ask.remote(largest, data, threads_of(share)))
    return divided(config, share, taken, connect.nodes(), connect.may_have(config.cluster))


def _require_models(config: SearchConfig, space: Space, data: Splits, share: Resources) -> None:
    """See `require_models`; asked where a trial will run, for there its files are."""
    written = TrainConfig(model=config.model, train=config.train)
    models = {(m.detector, m.backbone, m.weights): m for m in reachable(space, written)}
    ask = ray.remote(require_models).options(num_cpus=share.cpus_per_trial, resources=share.others)
    ray.get(ask.remote(list(models.values()), len(data.categories)))


def _settle(
    config: SearchConfig, data: Splits, share: Resources, study: Study, progress: Progress
) -> None:
    """Record, once, what `auto` comes to: asked where a trial will run, for the driver may be on
    another kind of machine."""
    if is_settled(study):
        return
    # a worker with a part of a GPU keeps what it took of it
    ask = ray.remote(max_calls=1 if share.gpus_per_trial else 0)(settle).options(
        num_cpus=share.cpus_per_trial, num_gpus=share.gpus_per_trial, resources=share.others
    )
    written = TrainConfig(model=config.model, train=config.train)
    record_settled(study, ray.get(ask.remote(written, data, threads_of(share))), progress)


# -- the trials ---------------------------------------------------------------------------------


def configure_tune() -> None:
    """Tune only schedules here: no loggers, no snapshots, no folders of its own."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000"
    os.environ["TUNE_RESULT_BUFFER_LENGTH"] = "1"
    # as many as the searcher hands out, which knows the slots: with a searcher Tune has one trial
    # wait by default, so that workers start, and a cluster grows, one after another
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "100000"
    os.environ["TUNE_WARN_THRESHOLD_S"] = "30"
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # pages of traceback; the searcher says a line
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # only the old output keeps silent at verbose=0
    os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
    for noisy in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # it lists each Tune trial whose worker died, though its trial of the study went on in another
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    RayActorManager._actor_task_failed = _actor_task_failed  # type: ignore[method-assign]
    # Tune would copy AWS's keys into the runtime environment, which Ray writes into its logs;
    # workers have them from the environment that their Ray was started in
    passed = {n for n in class_cache.ENV_VARS_TO_PROPAGATE if n.startswith(("RAY_", "TUNE_"))}
    class_cache.ENV_VARS_TO_PROPAGATE = passed


_tell_failure = RayActorManager._actor_task_failed


def _actor_task_failed(
    self: RayActorManager, tracked_actor_task: Any, exception: Exception
) -> None:
    """Tell Tune of a worker that Ray ended for memory, or whose node it calls dead, as of any dead
    worker: of these errors Tune 2.60 knows nothing, and ends with "Caught unexpected exception"."""
    if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
        exception = RayActorError(error_msg=str(exception))
    _tell_failure(self, tracked_actor_task, exception)


def run_trials(
    config: SearchConfig,
    space: Space,
    data: Splits,
    share: Resources,
    study: Study,
    progress: Progress,
    deadline: float = inf,
) -> str:
    """Run what is left to run, until a time on the monotonic clock; returns why the search stopped
    early, if for a reason to tell."""
    study.state = SearchState.RUNNING
    note_share(study, share)
    tracking = start_tracking(config, data, study)
    # read once: who edits the definition in a search does not end it
    at_once = every_second(partial(slots, share, connect.may_have(config.cluster)))
    stopping = Stopping(
        study,
        config.folder,
        config.search.max_failed_trials,
        at_once,
        grows=config.cluster != "local",
    )
    asha = None if config.search.asha == "off" else config.search.asha
    scheduler = StudyScheduler(study, asha, config.train.unfreeze.epochs)
    tidy = Tidying(config, study)
    watchers = Watchers(tracking, progress, tidy)
    progress.start(config, study, at_once)
    with tempfile.TemporaryDirectory(prefix="unfreeze-tune-") as scratch:
        tuner = tune.Tuner(
            _trainable(config, data, share),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(config, space, study, at_once, progress),
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,  # a worker takes seconds to import torch
                time_budget_s=None if deadline == inf else max(1.0, deadline - time.monotonic()),
                trial_dirname_creator=lambda trial: str(trial.config["number"]),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                # the searcher hands it out again: of a reused worker Tune counts one death twice
                failure_config=tune.FailureConfig(max_failures=0),
                stop=stopping,
                callbacks=[watchers],
                verbose=0,
            ),
        )
        try:
            with _sigint_given_back():
                tuner.fit()
            _catch_up(config, study, scheduler)
            over = time.monotonic() >= deadline
            late = SearchState.OUT_OF_TIME if over else SearchState.INTERRUPTED
            done = SearchState.DONE if confirm.is_complete(config, study) else late
            study.state = stopping.state or done
            study.release_running()
        except BaseException as error:
            with contextlib.suppress(Exception):  # the disk may be full, the database away
                tidy()
                study.state = SearchState.INTERRUPTED
                study.release_running()
            watchers.close(study, patience(study))
            cause = error.__context__
            if isinstance(error, TuneError) and cause is not None and is_full(cause):
                raise cause from None  # Tune's own error is the other's text alone
            raise
    tidy()
    watchers.close(study, patience(study))  # what is missing then is filled in at the end
    return stopping.reason


def _trainable(config: SearchConfig, data: Splits, share: Resources) -> Any:
    """What Tune starts: `run_trial`, with what all trials share, and the resources of one."""
    return tune.with_resources(
        tune.with_parameters(
            run_trial,
            data=data,
            folder=config.folder,
            threads=threads_of(share),
            gpu_share=share.gpus_per_trial,
            hang_timeout=config.search.hang_timeout,
            disk_cap=config.search.disk_cap,
        ),
        {"cpu": share.cpus_per_trial, "gpu": share.gpus_per_trial, **share.others},
    )


def _searcher(
    config: SearchConfig,
    space: Space,
    study: Study,
    at_once: Callable[[], int],
    progress: Progress,
) -> StudySearcher:
    return StudySearcher(
        study,
        space,
        settled_config(config, study),
        trials=config.search.trials,
        stages=count_stages,
        slots=at_once,
        confirm=partial(confirm.enqueue, config, study, progress.say),
    )


def _catch_up(config: SearchConfig, study: Study, scheduler: StudyScheduler) -> None:
    """Take the last epochs of trials that were cut short: Tune drops what they reported while it
    ended, and their checkpoints would be ahead of the record."""
    for record in list(study.records.values()):
        if record.running:  # those that wait have no worker, and bring their epochs when they go on
            for raw in load_reports(trial_folder(config.folder, record.number)):
                if scheduler.take(record.number, read_report(raw)):
                    break


@contextlib.contextmanager
def _sigint_given_back() -> Iterator[None]:
    """Undo what Tune leaves behind: a handler of Ctrl+C that only it would mind."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM, as batch systems send it, end a search as orderly as Ctrl+C does."""
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    except ValueError:  # not in the main thread: whoever called us minds the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# -- after --------------------------------------------------------------------------------------


CONCLUDED = {
    SearchState.DONE,
    SearchState.OUT_OF_TIME,
    SearchState.STOPPED,
    SearchState.FAILED,
}
"""States in which a search has a winner. Others are to be continued first."""


def patience(study: Study) -> float:
    """Seconds to wait for MLflow to have all rows of a search."""
    return PATIENCE + PATIENCE_A_TRIAL * len(study.records)


def conclude(
    config: SearchConfig,
    space: Space,
    data: Splits,
    study: Study,
    progress: Progress,
    reason: str = "",
) -> SearchResult:
    """Export the winner, and tell MLflow and the caller what the search came to."""
    rows = rank(config, study.records.values())
    best = winner(rows)
    state = study.state or "not begun"
    metrics: dict[str, Any] = {}
    if best is not None and state in CONCLUDED:
        metrics = export_winner(config, data, study, best, progress)
        study.winner = {"trial": best.record.number, "metrics": metrics}
    result = SearchResult(config, space, rows, best, metrics, costs(config, study), state, reason)
    tracking = start_tracking(config, data, study, try_report(result, study))
    complete = tracking.close(patience(study))
    if tracking.lacks:
        log.warning("%s", tracking.lacks)
    if complete and metrics:
        _register(config, data, study, metrics, progress)
    return result


def _register(
    config: SearchConfig, data: Splits, study: Study, metrics: dict[str, Any], progress: Progress
) -> None:
    uri = tracking_uri(config.tracking)
    if uri == "off" or not config.register_model:
        return
    winner = config.folder / "winner"
    try:
        line = register(
            uri, config.name, study.id, winner, metrics, data.val.pictures, progress.say
        )
        progress.say(f"in MLflow's registry: {line}")
    except Exception as error:  # of ours, and whatever a server, a disk or a network can do
        log.warning(
            "MLflow did not get the model (%s); the same line again registers it", why(error)
        )
