"""One search from start to end: check, join the cluster, let Tune run trials, export the best."""

import contextlib
import logging
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import ray

from clusters import connect
from clusters.preflight import failed_checks
from trainer.config import InputError, TrainConfig
from trainer.data.canvas import cache_folder
from trainer.data.canvas_store import canvases_folder, open_canvases
from trainer.data.dataset import Splits
from trainer.data.loading import load, resolve_data

from ..ranking import confirm
from ..ranking.results import SearchResult
from ..reporting.progress import Progress, Quiet
from ..space.config import SearchConfig, TrialResources
from ..space.locations import tracking_uri, with_absolute_paths
from ..space.space import Space, read_space
from ..space.space_validation import reachable_models
from ..space.validation import search_config_errors
from ..study.lock import locked, withdraw_stop_request
from ..study.search_state import SearchState
from ..study.start_or_resume import check_models_build, open_search, refuse_changes
from ..study.study import Study
from . import preflight
from .conclude import conclude
from .publishing import draw_data
from .resolve_auto import resolve_on_worker
from .run_trials import run_trials
from .trial_resources import trial_resources, with_measured_gpus
from .trials_at_once import describe_slots
from .tune.internals import configure_tune
from .tune.signals import sigterm_as_sigint

log = logging.getLogger(__name__)

PACKAGE_FOLDERS = [Path(__file__).parents[2] / name for name in ("trainer", "search", "clusters")]
"""Folders of the packages that every worker imports."""


def run(config: SearchConfig, progress: Progress | None = None) -> SearchResult:
    """Run a search, or continue the one in its folder, and export its winner.

    Raises InputError before any trial starts, ClusterConnectionError, or SearchBusyError when
    another process runs this search.
    """
    deadline = time.monotonic() + (config.search.time_budget or inf)
    progress = progress or Quiet()
    # 1. Check the configuration and the data, before anything starts.
    config = _checked(config)
    space = read_space(config.space)
    data = _load_data(config, progress)
    refuse_changes(config)
    _decode_pictures(config, data, progress)

    with contextlib.ExitStack() as held:
        held.enter_context(sigterm_as_sigint())
        # 2. Continue the study in the search's folder. A complete search needs no cluster.
        study = None
        if (config.folder / "search.yaml").is_file():
            study = held.enter_context(_opened(config, space, data))
            if confirm.is_complete(config, study):
                study.state = SearchState.DONE
                return conclude(config, space, data, study, progress)
        # 3. Join the cluster, and ask each of its nodes whether it can run a trial.
        configure_tune()
        with _connected(config, progress):
            held.enter_context(sigterm_as_sigint())  # Ray has set a handler, too
            if config.cluster != "local":
                _preflight(config, data, progress, begun=study is not None)
            # 4. Decide what a trial gets of the cluster.
            resources = trial_resources(config)
            resources = with_measured_gpus(config, space, data, resources, progress)
            progress.say(describe_slots(resources, config.cluster))
            # 5. Open the study of a new search, once all its models can be built.
            if study is None:
                with progress.step("loading PyTorch on a worker, and building every model there"):
                    _require_models(config, space, data, resources)
                study = held.enter_context(_opened(config, space, data))
            # 6. Resolve what is `auto`, then run the trials.
            resolve_on_worker(config, data, resources, study, progress)
            _note_trials_begun(config, study, progress)
            with progress.step("drawing the data set"):
                draw_data(config, data)
            try:
                reason = run_trials(config, space, data, resources, study, progress, deadline)
            finally:
                progress.close()
        # 7. Export the winner.
        return conclude(config, space, data, study, progress, reason)


# -- 1. before anything starts --------------------------------------------------------------------


def _checked(config: SearchConfig) -> SearchConfig:
    """The configuration with absolute paths. Raises InputError with everything wrong in it."""
    config = with_absolute_paths(config, Path())
    errors = search_config_errors(config)
    if errors:
        raise InputError(errors)
    return config


def _load_data(config: SearchConfig, progress: Progress) -> Splits:
    """Load the data set, and tell the user its notes.

    Embedded data is made where all nodes of the cluster can read it.
    """
    place = cache_folder() if config.cluster == "local" else config.storage
    with progress.step("reading and checking the data set") as count:
        pictures = resolve_data(config.data, place)
        data = load(pictures, cache_folder(), config.folder, count, config.model)
    for note in data.notes:
        progress.say(note)
    return data


def _decode_pictures(config: SearchConfig, data: Splits, progress: Progress) -> None:
    """Decode all pictures of a local search now, to refuse those that cannot be decoded."""
    if config.cluster == "local":
        size = config.model.image_size
        with progress.step(f"decoding all pictures, scaled to {size} pixels"):
            for split in (data.train, data.val):
                open_canvases(split, size, canvases_folder())


# -- 2. and 5. the study --------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(config: SearchConfig, space: Space, data: Splits) -> Iterator[Study]:
    """The study of a search; its folder is locked for all other drivers meanwhile."""
    with locked(config.folder):  # also makes the folder
        withdraw_stop_request(config.folder)
        yield open_search(config, space, data)


def _require_models(
    config: SearchConfig, space: Space, data: Splits, resources: TrialResources
) -> None:
    """Build every model of the space on a worker, which has the files. Raises InputError."""
    base_config = TrainConfig(model=config.model, train=config.train)
    models = {(m.detector, m.backbone, m.weights): m for m in reachable_models(space, base_config)}
    ask = ray.remote(check_models_build).options(
        num_cpus=resources.cpus_per_trial, resources=resources.others
    )
    ray.get(ask.remote(list(models.values()), len(data.categories)))


def _note_trials_begun(config: SearchConfig, study: Study, progress: Progress) -> None:
    """Tell the user when more trials have begun than the configuration now asks for."""
    begun = len(study.searched())
    if begun > config.search.trials:
        progress.say(
            f"search.trials is {config.search.trials}, but {begun} trials have begun: all of them "
            "continue"
        )


# -- 3. the nodes ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _connected(config: SearchConfig, progress: Progress) -> Iterator[None]:
    """Stay connected to the cluster of a search."""
    is_local = config.cluster == "local"
    with contextlib.ExitStack() as joined:
        with progress.step("starting Ray" if is_local else f"joining cluster {config.cluster}"):
            joined.enter_context(connect.connected(config.cluster, PACKAGE_FOLDERS))
        yield


def _preflight(config: SearchConfig, data: Splits, progress: Progress, begun: bool) -> None:
    """Check on every node whether it can run a trial. Raises InputError with all that is wrong."""
    token = preflight.write_marker(config.storage)
    try:
        with progress.step("asking each node whether it can run a trial"):
            errors = failed_checks(
                preflight.node_checks(config.storage, token, _files_to_read(config, data))
            )
    finally:
        (config.storage / token).unlink(missing_ok=True)
    tracking = preflight.tracking_failure(tracking_uri(config.tracking))
    if tracking and begun:  # the trials are worth more than MLflow's rows, which can follow later
        log.warning("%s", tracking)
    elif tracking:
        errors.append(tracking)
    if errors:
        raise InputError(errors)


def _files_to_read(config: SearchConfig, data: Splits) -> list[Path]:
    """One picture of each folder, and the weights if they are a file."""
    pictures = [p.file for split in (data.train, data.val) for p in split.pictures]
    files = list({file.parent: file for file in pictures}.values())
    weights = Path(config.model.weights)
    return [*files, *([weights] if weights.is_file() else [])]
