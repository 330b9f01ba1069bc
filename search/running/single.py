"""One trial in this process, without Ray: `unfreeze train`."""

import torch

from trainer.config import BadInput
from trainer.data.canvas import cache_folder
from trainer.data.loading import load
from trainer.epoch_report import EpochReport
from trainer.evaluation.review import review
from trainer.machine_errors import OutOfMemory
from trainer.precision import device
from trainer.training.engine import Diverged
from trainer.training.fit import fit

from ..ranking.results import SearchResult
from ..reporting.progress import Lines
from ..space.config import Resources, SearchConfig
from ..space.config_file import KEPT
from ..space.locations import trial_folder
from ..study.allocation import note_share
from ..study.environment_changes import difference
from ..study.facts import SearchState
from ..study.lock import is_requested, locked, withdraw_request
from ..study.opening import open_search, refuse_changes, require_models
from ..study.reading import kept
from ..study.record import End
from .auto import is_settled, record_settled, settle, settled_config
from .callbacks import draw_data, start_tracking
from .driver import conclude, patience
from .resources import threads_of
from .trial import phase_cache


def train(config: SearchConfig, progress: Lines) -> SearchResult:
    """Train the configuration as written, or go on with it, and export it like a winner."""
    search = config.search.model_copy(
        update={"trials": 1, "asha": "off", "first": [], "confirm": "off"}
    )
    config = config.model_copy(update={"space": {}, "search": search})
    data = load(config.data, cache_folder(), config.folder, model=config.model)
    for note in data.notes:
        progress.say(note)
    _refuse_search(config)
    refuse_changes(config)
    if config.resources != "auto":
        torch.set_num_threads(threads_of(config.resources))
    if not (config.folder / KEPT).is_file():
        require_models([config.model], len(data.categories))
    with locked(config.folder):
        withdraw_request(config.folder)
        study = open_search(config, [], data)
        if not is_settled(study):
            record_settled(study, settle(config, data, torch.get_num_threads()), progress)
        study.state = SearchState.RUNNING
        threads, gpus = torch.get_num_threads(), int(device().type == "cuda")
        note_share(study, Resources(cpus_per_trial=threads, gpus_per_trial=gpus))
        draw_data(config, data)
        tracking = start_tracking(config, data, study)
        progress.start(config, study, lambda: 1)

        def report(epoch: EpochReport) -> bool:
            if elsewhere := difference(study.records[0].last, epoch):
                progress.say(f"it goes on {elsewhere}")
            study.record(0, epoch)
            progress.update(0)
            tracking.wake(0)
            return not is_requested(config.folder)

        if study.waiting:
            _, written = study.ask([], settled_config(config, study))
            folder = trial_folder(config.folder, 0)
            phases = phase_cache(config.folder, config.search.disk_cap)
            try:
                result = fit(written, data, folder, report, phases)
                if not is_requested(config.folder):
                    review(written, data.val, folder, result.found)
                    study.end(0, End.FINISHED)
            except Diverged as error:
                study.end(0, End.DIVERGED, str(error))
            except OutOfMemory as error:
                study.end(0, End.OUT_OF_MEMORY, str(error))
            except BaseException:
                study.release_running()
                study.state = SearchState.INTERRUPTED
                tracking.wake(0)
                tracking.close(patience(study))
                raise
        study.state = SearchState.DONE if study.records[0].end else SearchState.STOPPED
        study.release_running()
        progress.update(0)
        tracking.close(patience(study))
        return conclude(config, [], data, study, progress)


def _refuse_search(config: SearchConfig) -> None:
    """Raise BadInput where a search lies, as its own file names it by default."""
    if (config.folder / KEPT).is_file() and kept(config.folder).get("space"):
        raise BadInput([f"{config.folder} holds a search; give the one trial another --name"])
