"""A search from start to end, as far as no Ray is needed; see test_end_to_end for the rest."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import asdict
from math import inf
from typing import Any, cast

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError
from ray.tune.error import TuneError

from search.reporting.progress import Quiet
from search.running import driver
from search.space.config import Resources, SearchConfig
from search.space.config_file import write_yaml
from search.space.locations import trial_folder
from search.space.space import read_space
from search.study.facts import SearchState
from search.study.opening import open_search
from search.study.record import End
from search.study.study import Study
from trainer.config import BadInput
from trainer.data.dataset import Splits
from trainer.model.checkpoint import save_last

from ..conftest import SPACE

Make = Callable[..., Any]
LR = "train.unfreeze.lr"


@pytest.fixture
def run_trials(
    make_search: Make, tiny: Splits, monkeypatch: pytest.MonkeyPatch, store: str
) -> Make:
    """Run a search whose Tuner hands out trial 0, and then does as it is told; returns the study
    and what was raised."""

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

        monkeypatch.setattr(driver.tune, "Tuner", Tuner)
        monkeypatch.setattr(driver, "slots", lambda *_: 1)
        try:
            driver.run_trials(config, space, tiny, Resources(), study, Quiet(), deadline)
        except BaseException as error:
            return study, error
        return study, None

    return run


def test_a_refused_search_starts_and_writes_nothing(make_search: Make) -> None:
    config = make_search({"space": SPACE})
    config.folder.mkdir(parents=True)
    (config.folder / "search.yaml").write_text(write_yaml(config.model_dump(mode="json")))
    before = (config.folder / "search.yaml").read_bytes()
    with pytest.raises(BadInput):
        driver.run(make_search({"space": SPACE, LR: 5e-3}))
    assert [file.name for file in config.folder.iterdir()] == ["search.yaml"]
    assert (config.folder / "search.yaml").read_bytes() == before


@pytest.mark.parametrize("error", [OutOfMemoryError("low on memory"), NodeDiedError("gone")])
def test_a_death_that_tune_does_not_know_is_told_as_one_that_it_knows(
    monkeypatch: pytest.MonkeyPatch, error: RayError
) -> None:
    told: list[Exception] = []
    monkeypatch.setattr(driver, "_tell_failure", lambda *words: told.append(words[-1]))
    driver._actor_task_failed(cast("Any", None), None, error)
    (one,) = told
    assert isinstance(one, RayActorError) and str(one) == str(error)
    driver._actor_task_failed(cast("Any", None), None, one)
    assert told[1] is one


def test_who_joins_the_cluster_while_another_begins_does_not_take_its_search_over(
    make_search: Make, tiny: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_search({"space": SPACE}), make_search({"space": SPACE, LR: 5e-3})
    before: list[bytes] = []

    @contextlib.contextmanager
    def connected(*_: Any) -> Iterator[None]:
        with driver._opened(first, read_space(SPACE), tiny):
            before.append((first.folder / "search.yaml").read_bytes())
        yield

    monkeypatch.setattr(driver, "configure_tune", lambda: None)
    monkeypatch.setattr(driver, "_require_models", lambda *_: None)
    monkeypatch.setattr(driver, "describe_slots", lambda *_: "")
    monkeypatch.setattr(driver, "share_of_a_trial", lambda _: Resources())
    monkeypatch.setattr(driver.connect, "connected", connected)
    with pytest.raises(BadInput, match=f"{LR}: 0.005"):
        driver.run(second)
    assert (first.folder / "search.yaml").read_bytes() == before[0]


# -- leaving Tune ---------------------------------------------------------------------------------


def statuses(uri: str, name: str) -> list[str]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug in Tune")])
def test_an_exception_out_of_tune_leaves_nothing_running(
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


def test_a_full_disk_is_told_as_one(run_trials: Make) -> None:
    def act(config: SearchConfig) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise TuneError(str(error)) from None

    _, raised = run_trials("full", act)
    assert isinstance(raised, OSError)
    assert raised.errno == errno.ENOSPC


def test_an_epoch_that_tune_dropped_is_taken_from_its_checkpoint(
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


def test_a_trial_that_waits_is_not_told_of(
    make_search: Make, make_reports: Make, tiny: Splits
) -> None:
    config = make_search({"space": SPACE})
    study = open_search(config, read_space(SPACE), tiny)
    for _ in range(2):
        study.ask(read_space(SPACE), config)
    study.release_running()  # both were begun by an earlier driver; this one has one of them
    study.ask(read_space(SPACE), config)
    for number in (0, 1):
        reports = [asdict(report) for report in make_reports([0.1, 0.2])]
        save_last({"reports": reports}, trial_folder(config.folder, number))
    taken: list[tuple[int, int]] = []

    class Scheduler:
        def take(self, number: int, report: Any) -> bool:
            taken.append((number, report.epoch))
            study.end(number, End.PRUNED)  # raises for one that waits
            return True

    driver._catch_up(config, study, cast("Any", Scheduler()))
    assert taken == [(0, 1)]
    assert study.waiting == [1]


@pytest.mark.parametrize(("deadline", "state"), [(0.0, "out of time"), (inf, "interrupted")])
def test_a_search_that_ends_before_its_trials_says_why(
    run_trials: Make, deadline: float, state: str
) -> None:
    study, raised = run_trials(f"ended-{state.replace(' ', '-')}", lambda _: None, deadline)
    assert raised is None
    assert study.state == state


@pytest.mark.parametrize(
    "state", [SearchState.RUNNING, SearchState.INTERRUPTED, SearchState.DISK_FULL]
)
def test_a_search_that_is_to_go_on_has_no_winner_yet(
    make_search: Make, make_reports: Make, tiny: Splits, state: SearchState
) -> None:
    config = make_search({"space": SPACE, "tracking": "off"})
    space = read_space(config.space)
    study = open_search(config, space, tiny)
    study.ask(space, config)
    for report in make_reports([0.1, 0.2, 0.3, 0.4]):
        study.record(0, report)
    study.end(0, End.FINISHED)
    study.state = state
    result = driver.conclude(config, space, tiny, study, Quiet())
    assert result.winner is not None and not result.metrics
    assert not (config.folder / "winner").exists()
    assert study.winner is None
