"""One search from start to end: check, join the cluster, let Tune run trials, export the best."""

import contextlib
import logging
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.error import TuneError

from clusters import connect
from trainer.checkpoint import load_last, write_whole
from trainer.config import BadInput, Depth
from trainer.data.canvas import cache_folder, open_store
from trainer.data.dataset import Splits
from trainer.data.formats import load
from trainer.fit import read_report
from trainer.model.backbones import count_stages

from . import confirm
from .config import (
    Resources,
    SearchConfig,
    absolute,
    check,
    read_yaml,
    stored,
    study_uri,
    tracking_uri,
    trial_folder,
    write_yaml,
)
from .disk import is_full, sweep, tidy
from .lock import locked
from .progress import Progress, Quiet
from .resources import describe_slots, share_of_a_trial, slots
from .results import SearchResult, costs, markdown, rank, winner
from .scheduler import StudyScheduler
from .searcher import StudySearcher
from .space import Space, apply, as_written, contains, read_space
from .stopping import Stopping, withdraw_request
from .study import Study, open_study
from .tracking import Description, MlflowTracking, NoTracking
from .trial import resolve_precision, run_trial
from .winner import export_winner

log = logging.getLogger(__name__)

PACKAGES = [Path(__file__).parents[1] / name for name in ("trainer", "search", "clusters")]
MAY_CHANGE = (
    "search.trials",
    "search.time_budget",
    "search.confirm",
    "search.max_failed_trials",
    "search.hang_timeout",
    "search.disk_cap",
    "resources",
    "cluster",
    "tracking",
    "storage",
)
"""What a continued search may have differently."""
TRACKING_PATIENCE = 60.0
"""Seconds that an ended search waits for MLflow to take the last rows."""


def run(config: SearchConfig, progress: Progress | None = None) -> SearchResult:
    """Run a search, or continue it where its folder holds one, and export its winner.

    Raises BadInput before anything is started or written, CannotConnect, or Busy when another
    process runs this search.
    """
    config = absolute(config, Path())
    errors = check(config)
    if errors:
        raise BadInput(errors)
    progress = progress or Quiet()
    space = read_space(config.space)
    data = load(config.data, cache_folder())
    for note in data.notes:
        progress.say(note)
    refuse_changes(config)
    if config.cluster == "local":  # find what cannot be decoded before anything starts
        for split in (data.train, data.val):
            open_store(split, config.model.image_size, cache_folder() / "canvases")

    with contextlib.ExitStack() as held:
        study = None
        if (config.folder / "search.yaml").is_file():
            held.enter_context(locked(config.folder))
            withdraw_request(config.folder)
            study = open_search(config, space, data)
            if confirm.is_complete(config, study):  # nothing to do, and no cluster to join for it
                study.set("state", "done")
                return conclude(config, space, data, study, progress)
        _configure_tune()
        with connect.connected(config.cluster, PACKAGES):
            share = share_of_a_trial(config)
            progress.say(describe_slots(share))
            if study is None:
                held.enter_context(locked(config.folder))  # makes the folder, the first thing there
                study = open_search(config, space, data)
            if study.get("precision") is None:
                study.set("precision", _precision(config, share))
            try:
                reason = _run_trials(config, space, data, share, study, progress)
            finally:
                progress.close()
        return conclude(config, space, data, study, progress, reason)


# -- before -------------------------------------------------------------------------------------


def refuse_changes(config: SearchConfig) -> None:
    """Raise BadInput with the differences when the folder holds a search of another config."""
    file = config.folder / "search.yaml"
    if not file.is_file():
        return
    before, now = _flat(read_yaml(file)), _flat(stored(config))
    errors = [
        f"{name}: {now.get(name)} (was {before.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE)
    ]
    if errors:
        raise BadInput(
            [
                f"{config.folder} holds a search of this name with another configuration; give "
                "this one another --name, or undo:",
                *errors,
            ]
        )


def _flat(raw: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(raw, dict) or not raw:
        return {prefix.removesuffix("."): raw}
    return {
        k: v for name, inner in raw.items() for k, v in _flat(inner, f"{prefix}{name}.").items()
    }


def _precision(config: SearchConfig, share: Resources) -> str:
    """`auto` as what a trial's machine has: asked there, for the driver may be another kind."""
    if config.train.precision != "auto":
        return config.train.precision
    ask = ray.remote(resolve_precision).options(
        num_cpus=share.cpus_per_trial, num_gpus=share.gpus_per_trial
    )
    return str(ray.get(ask.remote(config.train.precision)))


def open_search(config: SearchConfig, space: Space, data: Splits) -> Study:
    """The study, with the trials that an earlier driver left, or with the first points.

    Raises BadInput when the data set has changed since it was begun, or when a database holds
    another search of this name.
    """
    settings = {"seed": config.search.seed, "trials": config.search.trials}
    study = open_study(config.folder, config.name, study_uri(config), **settings)
    if study.get("id") is not None and not (config.folder / "search.yaml").is_file():
        raise BadInput(
            [f"name: {config.name}: its study is there already, of a search in another folder"]
        )
    if study.get("data") not in (None, data.digest):
        raise BadInput([f"data: its content has changed since {config.folder} was begun"])
    write_whole(write_yaml(stored(config)).encode(), config.folder / "search.yaml")
    if study.get("id") is None:
        study.set("data", data.digest)
        study.set("id", uuid.uuid4().hex)
    study.release_running()
    sweep(config.folder)
    if all(record.origin != "sampled" for record in study.records.values()):
        _enqueue_first(config, space, study)
    return study


def _enqueue_first(config: SearchConfig, space: Space, study: Study) -> None:
    """The configuration as written, the same with everything unfrozen, then the user's own."""
    points = [("as written", config), *(("first", apply(config, v)) for v in config.search.first)]
    everything: tuple[Depth, ...] = ("all", count_stages(config.model.backbone))
    for dimension in space:
        legal = [depth for depth in everything if contains(dimension, depth)]
        if dimension.name == "train.unfreeze.depth" and legal:
            points.insert(1, ("all unfrozen", apply(config, {dimension.name: legal[0]})))
    seen = [record.parameters for record in study.records.values()]
    for origin, point in points[: config.search.trials]:
        parameters = as_written(space, point)
        if parameters not in seen:
            seen.append(parameters)
            study.enqueue(parameters, origin)


# -- the trials ---------------------------------------------------------------------------------


def _configure_tune() -> None:
    """Tune only schedules here: no loggers, no snapshots, no folders of its own."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1000000"
    os.environ["TUNE_RESULT_BUFFER_LENGTH"] = "1"
    os.environ["TUNE_WARN_THRESHOLD_S"] = "30"
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # pages of traceback; the searcher says a line
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # only the old output keeps silent at verbose=0
    os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
    for noisy in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # it lists each Tune trial whose worker died, though its trial of the study went on in another
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)


def _run_trials(
    config: SearchConfig,
    space: Space,
    data: Splits,
    share: Resources,
    study: Study,
    progress: Progress,
) -> str:
    """Run what is left to run; returns why the search stopped early, if for a reason to tell."""
    study.set("state", "running")
    study.set("resources", share.model_dump())
    tracking = start_tracking(config, space, study)
    written = apply(config, {"train.precision": study.get("precision")})
    asha = config.search.asha
    deadline = time.monotonic() + (config.search.time_budget or float("inf"))
    stopping = Stopping(study, config.folder, config.search.max_failed_trials)
    scheduler = StudyScheduler(study, None if asha == "off" else asha, config.train.unfreeze.epochs)
    progress.start(config, study, partial(slots, share))
    with tempfile.TemporaryDirectory(prefix="unfreeze-tune-") as scratch, _sigterm_as_sigint():
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    run_trial,
                    data=data,
                    folder=config.folder,
                    threads=int(max(1, share.cpus_per_trial)),
                    hang_timeout=config.search.hang_timeout,
                ),
                {"cpu": share.cpus_per_trial, "gpu": share.gpus_per_trial},
            ),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(
                    study,
                    space,
                    written,
                    trials=config.search.trials,
                    stages=count_stages,
                    slots=partial(slots, share),
                    confirm=partial(confirm.enqueue, config, study),
                ),
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,  # a worker takes seconds to import torch
                time_budget_s=config.search.time_budget,
                trial_dirname_creator=lambda trial: str(trial.config["number"]),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                # the searcher hands it out again: of a reused worker Tune counts one death twice
                failure_config=tune.FailureConfig(max_failures=0),
                stop=stopping,
                callbacks=[_Watchers(tracking, progress, partial(tidy, config, study))],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except BaseException as error:
            with contextlib.suppress(Exception):  # the disk may be full, the database away
                study.set("state", "interrupted")
                study.release_running()
            _wake_all(tracking, study)
            tracking.close(TRACKING_PATIENCE)
            cause = error.__context__
            if isinstance(error, TuneError) and cause is not None and is_full(cause):
                raise cause from None  # Tune's own error is the other's text alone
            raise
    _catch_up(config, study, scheduler)
    late = "out of time" if time.monotonic() >= deadline else "interrupted"
    done = "done" if confirm.is_complete(config, study) else late
    study.set("state", stopping.state or done)
    study.release_running()
    tidy(config, study)
    _wake_all(tracking, study)
    if not tracking.close(TRACKING_PATIENCE):
        log.warning("MLflow lacks some rows still; the same line again fills them in")
    return stopping.reason


def _catch_up(config: SearchConfig, study: Study, scheduler: StudyScheduler) -> None:
    """Take the last epochs of trials that were cut short: Tune drops what they reported while it
    ended, and their checkpoints would be ahead of the record."""
    for record in list(study.records.values()):
        if record.end is None and record.started is not None:
            checkpoint = load_last(trial_folder(config.folder, record.number)) or {"reports": []}
            for raw in checkpoint["reports"]:
                if scheduler.take(record.number, read_report(raw)):
                    break


def _wake_all(tracking: MlflowTracking | NoTracking, study: Study) -> None:
    tracking.wake(None)
    for number in study.records:
        tracking.wake(number)


class _Watchers(tune.Callback):
    """Tells tracking and progress that a trial has news, and has the disk tidied after one; none
    of them can stop the search."""

    def __init__(
        self,
        tracking: MlflowTracking | NoTracking,
        progress: Progress,
        tidy: Callable[[], None],
    ) -> None:
        self._tracking = tracking
        self._progress = progress
        self._tidy = tidy

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its parts at the start; these stay here

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._tell(trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self._tell(trial)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._tell(trial, ended=True)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._tell(trial, ended=True)

    def _tell(self, trial: Any, ended: bool = False) -> None:
        number = int(trial.config["number"])
        try:
            self._tracking.wake(number)
            self._progress.update(number)
            if ended:
                self._tidy()
        except Exception:  # a closed terminal, say: watching must not stop the work
            log.debug("progress failed", exc_info=True)


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


def conclude(
    config: SearchConfig,
    space: Space,
    data: Splits,
    study: Study,
    progress: Progress,
    reason: str = "",
) -> SearchResult:
    """Export the winner, and tell MLflow and the caller what the search came to."""
    rows = rank(config, space, study.records.values())
    best = winner(rows)
    state = study.get("state")
    metrics: dict[str, Any] = {}
    if best is not None and state in CONCLUDED:
        metrics = export_winner(config, data, study, best, progress)
        study.set("winner", {"trial": best.record.number, "metrics": metrics})
    result = SearchResult(config, space, rows, best, metrics, costs(config, study), state, reason)
    tracking = start_tracking(config, space, study, result)
    if not tracking.close(TRACKING_PATIENCE):
        log.warning("MLflow lacks the final rows; the same line again fills them in")
    return result


def start_tracking(
    config: SearchConfig, space: Space, study: Study, result: SearchResult | None = None
) -> MlflowTracking | NoTracking:
    uri = tracking_uri(config.tracking)
    if uri == "off":
        return NoTracking()
    return MlflowTracking(uri, study, config.name, partial(_describe, config, space, study, result))


CONCLUDED = {"done", "out of time", "stopped", "failed"}
"""States in which a search has a winner. Others are to be continued first."""
STATUS = {
    "running": "RUNNING",
    "done": "FINISHED",
    "out of time": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "disk full": "FAILED",
}


def _describe(
    config: SearchConfig, space: Space, study: Study, result: SearchResult | None
) -> Description:
    rows = rank(config, space, list(study.records.values()))
    best = winner(rows)
    tags = {"unfreeze.state": str(study.get("state")), "unfreeze.data": str(study.get("data"))}
    metrics = {}
    if best is not None:
        tags["unfreeze.best_trial"] = str(best.record.number)
        metrics["best_map"] = best.map or 0.0
    for split in ("val", "test"):
        figures = result.metrics.get(split, {}).get("figures", {}) if result else {}
        metrics |= {f"winner/{split}_{k}": v for k, v in figures.items() if v is not None}
    return Description(
        status=STATUS.get(str(study.get("state")), "KILLED"),
        params={
            "detector": config.model.detector,
            "backbone": config.model.backbone,
            "image_size": str(config.model.image_size),
            "precision": str(study.get("precision")),
        },
        tags=tags,
        metrics=metrics,
        texts={
            "search.yaml": write_yaml(stored(config)),
            "table.md": markdown(space, rows),
        },
    )
