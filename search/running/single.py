"""One trial in this process, without Ray: `unfreeze train`."""

import torch

from trainer.config import InputError
from trainer.data.canvas import cache_folder
from trainer.data.dataset import Splits
from trainer.data.loading import load
from trainer.epoch_report import EpochReport
from trainer.evaluation.review import review
from trainer.precision import default_device
from trainer.training.fit import fit

from ..ranking.results import SearchResult
from ..reporting.progress import Progress
from ..space.config import SearchConfig, TrialResources
from ..space.config_file import CONFIG_FILE
from ..space.locations import trial_folder
from ..study.allocation import record_allocation
from ..study.environment_changes import describe_change
from ..study.lock import is_stop_requested, locked, withdraw_stop_request
from ..study.reading import read_stored_config
from ..study.record import End
from ..study.search_state import SearchState
from ..study.start_or_resume import check_models_build, open_search, refuse_changes
from ..study.study import Study
from ..tracking.tracking import MlflowTracking, NoTracking
from .conclude import conclude, tracking_timeout
from .publishing import draw_data, start_tracking
from .resolve_auto import resolve_here, resolved_config
from .trial import ENDS, phase_cache
from .trial_resources import num_threads


def train(config: SearchConfig, progress: Progress) -> SearchResult:
    """Train the configuration of the file, or continue it, and export it like a winner."""
    # 1. Check everything before anything is written.
    config = _without_search(config)
    with progress.step("reading and checking the data set") as count:
        data = load(config.data, cache_folder(), config.folder, count, config.model)
    for note in data.notes:
        progress.say(note)
    _refuse_search(config)
    refuse_changes(config)
    if config.resources != "auto":
        torch.set_num_threads(num_threads(config.resources))
    if not (config.folder / CONFIG_FILE).is_file():
        with progress.step("building the model"):
            check_models_build([config.model], len(data.categories))
    with locked(config.folder):
        withdraw_stop_request(config.folder)
        # 2. Open the study, and resolve what is `auto`.
        study = open_search(config, [], data)
        threads, gpus = torch.get_num_threads(), int(default_device().type == "cuda")
        resolve_here(config, data, threads, study, progress)
        study.state = SearchState.RUNNING
        record_allocation(study, TrialResources(cpus_per_trial=threads, gpus_per_trial=gpus))
        with progress.step("drawing the data set"):
            draw_data(config, data)
        tracking = start_tracking(config, data, study)
        # 3. Train the trial, unless it has ended before.
        progress.start(config, study, lambda: 1)
        try:
            if study.waiting:
                _train_trial(config, data, study, progress, tracking)
        finally:
            progress.close()
        study.state = SearchState.DONE if study.records[0].end else SearchState.STOPPED
        study.release_running()
        progress.update(0)
        tracking.close(tracking_timeout(study))
        # 4. Export it.
        return conclude(config, [], data, study, progress)


def _without_search(config: SearchConfig) -> SearchConfig:
    """The configuration with one trial and nothing to search."""
    search = config.search.model_copy(
        update={"trials": 1, "asha": "off", "first": [], "confirm": "off"}
    )
    return config.model_copy(update={"space": {}, "search": search})


def _refuse_search(config: SearchConfig) -> None:
    """Raise InputError if the folder, which has the file's name by default, holds a search."""
    if (config.folder / CONFIG_FILE).is_file() and read_stored_config(config.folder).get("space"):
        raise InputError([f"{config.folder} holds a search; give the one trial another --name"])


def _train_trial(
    config: SearchConfig,
    data: Splits,
    study: Study,
    progress: Progress,
    tracking: MlflowTracking | NoTracking,
) -> None:
    """Train trial 0 and record its end; it has none yet if `unfreeze stop` was called."""

    def report(epoch: EpochReport) -> bool:
        if change := describe_change(study.records[0].last, epoch):
            progress.say(f"it continues {change}")
        study.record(0, epoch)
        progress.update(0)
        tracking.wake(0)
        return not is_stop_requested(config.folder)

    _, trial_config = study.ask([], resolved_config(config, study))
    folder = trial_folder(config.folder, 0)
    folder.mkdir(parents=True, exist_ok=True)
    phases = phase_cache(config.folder, config.search.disk_cap)
    try:
        result = fit(trial_config, data, folder, report, phases)
        if not is_stop_requested(config.folder):
            review(trial_config, data.val, folder, result.detections)
            study.end(0, End.FINISHED)
    except tuple(ENDS) as error:
        study.end(0, ENDS[type(error)], str(error))
    except BaseException:
        study.release_running()
        study.state = SearchState.INTERRUPTED
        tracking.wake(0)
        tracking.close(tracking_timeout(study))
        raise
