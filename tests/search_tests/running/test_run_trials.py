"""The trials of a search, with a Tuner that only hands out trial 0: what is left in each case."""

import errno
from collections.abc import Callable
from dataclasses import asdict
from math import inf
from typing import Any, cast

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from ray.tune.error import TuneError

from search.reporting.progress import Quiet
from search.running import run_trials as module
from search.space.config import SearchConfig, TrialResources
from search.space.locations import trial_folder
from search.space.space import read_space
from search.study.record import End
from search.study.search_state import SearchState
from search.study.start_or_resume import open_search
from search.study.study import Study
from trainer.data.dataset import Splits
from trainer.model.checkpoint import save_last

from ..conftest import SPACE

Make = Callable[..., Any]


@pytest.fixture
def run_trials(
    make_search: Make, tiny: Splits, monkeypatch: pytest.MonkeyPatch, store: str
) -> Make:
    """Run a search whose Tuner hands out trial 0 and then calls `act`.

    Returns the study and the exception that was raised.
    """

    def run(
        name: str, act: Callable[[SearchConfig], None], deadline: float = inf
    ) -> tuple[Study, BaseException | None]:
        config = make_search({"name": name, "space": SPACE, "tracking": store})
        space = read_space(config.space)
        study = open_search(config, space, tiny)
        study.precision = "fp32"
        study.trunk_cache = "off"

        class Tuner:
            def __init__(self, trainable: Any, *, tune_config: Any, run_config: Any) -> None:
                self._searcher = tune_config.search_alg

            def fit(self) -> None:
                assert self._searcher.suggest("first")["number"] == 0
                act(config)

        monkeypatch.setattr("search.running.run_trials.tune.Tuner", Tuner)
        monkeypatch.setattr(module, "slots", lambda *_: 1)
        try:
            module.run_trials(config, space, tiny, TrialResources(), study, Quiet(), deadline)
        except BaseException as error:
            return study, error
        return study, None

    return run


def statuses(uri: str, name: str) -> list[str]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug in Tune")])
def test_an_exception_from_tune_leaves_nothing_running(
    run_trials: Make, store: str, error: BaseException
) -> None:
    name = f"left-by-{type(error).__name__}"

    def act(config: SearchConfig) -> None:
        raise error

    study, raised = run_trials(name, act)
    assert raised is error
    assert study.state == SearchState.INTERRUPTED
    assert study.waiting == [0, 1]
    assert not study.optuna.get_trials(states=(TrialState.RUNNING,))
    assert set(statuses(store, name)) == {"KILLED"}


def test_a_full_disk_is_raised_as_one(run_trials: Make) -> None:
    def act(config: SearchConfig) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise TuneError(str(error)) from None

    _, raised = run_trials("full", act)
    assert isinstance(raised, OSError)
    assert raised.errno == errno.ENOSPC


def test_an_epoch_that_tune_dropped_is_recorded_from_its_checkpoint(
    run_trials: Make, make_reports: Make
) -> None:
    def act(config: SearchConfig) -> None:
        reports = [asdict(report) for report in make_reports([0.1, 0.2, 0.3])]
        folder = trial_folder(config.folder, 0)
        folder.mkdir(parents=True)
        save_last({"reports": reports}, folder)

    study, raised = run_trials("dropped", act)
    assert raised is None
    assert {epoch: r.map for epoch, r in study.records[0].reports.items()} == {
        1: 0.1,
        2: 0.2,
        3: 0.3,
    }
    assert study.state == SearchState.INTERRUPTED
    assert study.waiting == [0, 1]


def test_a_waiting_trial_gets_no_epochs_from_its_checkpoint(
    make_search: Make, make_reports: Make, tiny: Splits
) -> None:
    config = make_search({"space": SPACE})
    study = open_search(config, read_space(SPACE), tiny)
    for _ in range(2):
        study.ask(read_space(SPACE), config)
    study.release_running()  # an earlier driver began both; this one runs one of them
    study.ask(read_space(SPACE), config)
    for number in (0, 1):
        reports = [asdict(report) for report in make_reports([0.1, 0.2])]
        save_last({"reports": reports}, trial_folder(config.folder, number))
    taken: list[tuple[int, int]] = []

    class Scheduler:
        def take(self, number: int, report: Any) -> bool:
            taken.append((number, report.epoch))
            study.end(number, End.PRUNED)  # raises for a waiting trial
            return True

    module._record_dropped_epochs(config, study, cast("Any", Scheduler()))
    assert taken == [(0, 1)]
    assert study.waiting == [1]


@pytest.mark.parametrize(("deadline", "state"), [(0.0, "out of time"), (inf, "interrupted")])
def test_the_state_says_why_a_search_ended_early(
    run_trials: Make, deadline: float, state: str
) -> None:
    study, raised = run_trials(f"ended-{state.replace(' ', '-')}", lambda _: None, deadline)
    assert raised is None
    assert study.state == state
