"""The study as a Tune scheduler: a report is recorded, then judged."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from search.running.tune.scheduler import StudyScheduler
from search.space.config import Asha
from search.space.space import read_space
from search.study.record import End, to_json
from search.study.storage import open_study
from search.study.study import Study

Make = Callable[..., Any]


@dataclass
class RayTrial:
    """All that a scheduler asks of Tune's trials."""

    number: int
    status: str = "PENDING"
    error_file: str | None = None
    last_result: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = {"number": self.number}
        self.trial_id = f"id {self.number}"


@dataclass
class Controller:
    """All that a scheduler asks of Tune itself: to tell the searcher of trials that failed."""

    completed: list[str] = field(default_factory=list)

    @property
    def search_alg(self) -> "Controller":
        return self

    def on_trial_complete(self, trial_id: str, error: bool) -> None:
        assert error
        self.completed.append(trial_id)


def opened(trials: int) -> Study:
    """A study in which so many trials run."""
    study = open_study(Path("kept"), "tiny", trials=trials)
    study.release_running()
    return study


def asked(study: Study, make_search: Make, trials: int) -> None:
    space = {"train.unfreeze.lr": {"log": [1e-4, 1e-2]}}
    for _ in range(trials):
        study.ask(read_space(space), make_search({"space": space}))


def scheduler_for(study: Study, asha: Asha | None, epochs: int) -> Any:
    """Untyped: it is given the trials above instead of Tune's."""
    return StudyScheduler(study, asha, epochs)


def decide(scheduler: Any, number: int, report: Any) -> str:
    result = {"report": to_json(report)}
    return str(scheduler.on_trial_result(None, RayTrial(number), result))


def test_a_trial_that_continues_elsewhere_is_a_warning(
    make_search: Make, make_reports: Make, caplog: pytest.LogCaptureFixture
) -> None:
    study = opened(1)
    asked(study, make_search, 1)
    scheduler = scheduler_for(study, None, 9)
    for epoch, report in enumerate(make_reports([0.1, 0.2, 0.3, 0.4]), start=1):
        where = {"torch": "2.14.1" if epoch < 3 else "2.15.0"}
        decide(scheduler, 0, replace(report, environment=where))
        decide(
            scheduler, 0, replace(report, environment=where)
        )  # as a trial that resumes reports it again
    message = "trial 0 continues from epoch 3 with torch 2.15.0 (was 2.14.1)"
    assert [record.getMessage() for record in caplog.records] == [message]
    assert opened(1).records[0].reports[3].environment == {"torch": "2.15.0"}


def test_a_stop_is_recorded_with_its_report_and_ends_the_trial(
    make_search: Make, make_reports: Make
) -> None:
    study = opened(2)
    asked(study, make_search, 2)
    scheduler = scheduler_for(study, Asha(grace_period=1), 9)
    assert [decide(scheduler, 0, r) for r in make_reports([0.1, 0.5])] == ["CONTINUE"] * 2
    assert [decide(scheduler, 1, r) for r in make_reports([0.1, 0.2])] == ["CONTINUE", "STOP"]
    assert study.records[1].end is End.PRUNED and study.records[1].stopped_at == 1
    assert study.records[0].end is None


def test_a_stop_is_repeated_after_a_continuation_at_the_first_replayed_report(
    make_search: Make, make_reports: Make
) -> None:
    study = opened(2)
    asked(study, make_search, 2)
    for report in make_reports([0.1, 0.5]):
        study.record(0, report)
    first, second = make_reports([0.1, 0.2])
    study.record(1, first)
    study.record(1, second, stop=True)  # here the driver died

    again = opened(2)
    assert again.waiting == [0, 1]
    again.ask([], make_search())
    again.ask([], make_search())
    scheduler = scheduler_for(again, Asha(grace_period=1), 9)
    assert decide(scheduler, 1, first) == "STOP"
    assert again.records[1].end is End.PRUNED


def test_a_replayed_report_is_not_judged_again(make_search: Make, make_reports: Make) -> None:
    study = opened(2)
    asked(study, make_search, 2)
    scheduler = scheduler_for(study, Asha(grace_period=1), 9)
    early, late = make_reports([0.1, 0.2]), make_reports([0.1, 0.5])
    assert [decide(scheduler, 0, r) for r in early] == ["CONTINUE"] * 2
    assert [decide(scheduler, 1, r) for r in late] == ["CONTINUE"] * 2
    # its worker died and reports again, when another trial is better
    assert [decide(scheduler, 0, r) for r in early] == ["CONTINUE"] * 2
    assert study.records[0].end is None


def test_a_trial_that_confirms_another_runs_to_its_end(
    make_search: Make, make_reports: Make
) -> None:
    study = opened(2)
    asked(study, make_search, 1)
    study.enqueue(study.records[0].parameters, "confirms #0", confirms=0, seed=1)
    asked(study, make_search, 1)
    scheduler = scheduler_for(study, Asha(grace_period=1), 9)
    assert [decide(scheduler, 0, r) for r in make_reports([0.1, 0.5])] == ["CONTINUE"] * 2
    assert [decide(scheduler, 1, r) for r in make_reports([0.1, 0.2])] == ["CONTINUE"] * 2


def test_the_end_that_a_worker_reports_is_recorded(make_search: Make) -> None:
    study = opened(2)
    asked(study, make_search, 2)
    scheduler = scheduler_for(study, None, 9)
    result = {"end": "out of memory", "text": "no memory"}
    assert scheduler.on_trial_result(None, RayTrial(0), result) == "STOP"
    assert study.records[0].end is End.OUT_OF_MEMORY
    assert study.records[0].text == "no memory"
    assert scheduler.on_trial_result(None, RayTrial(1), {"end": "error"}) == "STOP"
    assert scheduler.on_trial_result(None, RayTrial(1), {}) == "CONTINUE"


KILLED = """\
Failure # 1 (occurred at 2026-11-25_18-00-00)
2 worker(s) were killed due to the node running low on memory.
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
77\t9.00\tpython other.py
42\t2.37\tray::ImplicitFunc.train
43\t0.59\tray::ImplicitFunc.train
"""
"""Ray's words, shortened."""


def test_of_workers_killed_for_memory_only_the_largest_is_out_of_memory(
    make_search: Make, tmp_path: Path
) -> None:
    study = opened(3)
    asked(study, make_search, 3)
    file = tmp_path / "error.txt"
    file.write_text(KILLED)
    scheduler = scheduler_for(study, None, 9)
    for number, known in ((0, {"pid": 42}), (1, {"pid": 43}), (2, {})):
        scheduler.on_trial_error(None, RayTrial(number, "ERROR", str(file), known))
    assert [study.records[n].end for n in range(3)] == [End.OUT_OF_MEMORY, None, None]
    scheduler.on_trial_error(None, RayTrial(2, "ERROR", str(file)))  # before its first report again
    assert study.records[2].end is End.OUT_OF_MEMORY


def test_if_ray_names_no_process_the_trial_is_out_of_memory(
    make_search: Make, tmp_path: Path
) -> None:
    study = opened(4)
    asked(study, make_search, 4)
    texts = ("the node running low on memory", "memory pressure")
    workers: tuple[dict[str, Any], ...] = ({"pid": 42}, {})  # one without a report: it is unknown
    for number, (text, known) in enumerate(product(texts, workers)):
        file = tmp_path / f"{number}.txt"
        file.write_text(f"Failure # 1\nTask was killed due to {text}.\n")
        trial = RayTrial(number, "ERROR", str(file), known)
        scheduler_for(study, None, 9).on_trial_error(None, trial)
        assert study.records[number].end is End.OUT_OF_MEMORY


def test_a_full_disk_of_a_worker_stops_its_trial_without_an_end(make_search: Make) -> None:
    study = opened(1)
    asked(study, make_search, 1)
    result = {"full_disk": "No space left on device"}
    assert scheduler_for(study, None, 9).on_trial_result(None, RayTrial(0), result) == "STOP"
    assert study.full_disk == "No space left on device"
    assert study.records[0].end is None


def test_a_full_disk_of_the_record_stops_a_trial_without_an_end(
    make_search: Make, make_reports: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(1)
    asked(study, make_search, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(study.storage, "set_trial_user_attr", full)
    (report,) = make_reports([0.1])
    assert decide(scheduler_for(study, None, 9), 0, report) == "STOP"
    assert "No space left" in study.full_disk
    assert study.records[0].end is None and not study.records[0].reports


def test_without_asha_no_trial_is_stopped(make_search: Make, make_reports: Make) -> None:
    study = opened(2)
    asked(study, make_search, 2)
    scheduler = scheduler_for(study, None, 9)
    for number, value in ((0, 0.9), (1, 0.0)):
        for report in make_reports([value] * 10):
            assert decide(scheduler, number, report) == "CONTINUE"


def test_waiting_trials_run_in_order() -> None:
    scheduler, tune = scheduler_for(opened(0), None, 9), Controller()
    trials = [RayTrial(number) for number in range(3)]
    for trial in trials:
        scheduler.on_trial_add(tune, trial)
    assert scheduler.choose_trial_to_run(tune) is trials[0]
    trials[0].status, trials[1].status = "RUNNING", "TERMINATED"
    assert scheduler.choose_trial_to_run(tune) is trials[2]
    trials[2].status = "RUNNING"
    assert scheduler.choose_trial_to_run(tune) is None


def test_a_free_worker_goes_to_a_trial_for_which_none_is_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler, tune = scheduler_for(opened(0), None, 9), Controller()
    starting, new = RayTrial(0), RayTrial(1)
    scheduler.on_trial_add(tune, starting)
    assert scheduler.choose_trial_to_run(tune) is starting
    scheduler.on_trial_add(tune, new)
    assert scheduler.choose_trial_to_run(tune) is new
    assert scheduler.choose_trial_to_run(tune) is starting  # no other trial needs it
    monkeypatch.setattr("search.running.tune.scheduler.START_SECONDS", 0.0)
    scheduler.on_trial_add(tune, RayTrial(2))
    assert scheduler.choose_trial_to_run(tune) is starting  # its worker never started


def test_a_trial_that_tune_gave_up_silently_is_completed_once() -> None:
    scheduler, tune = scheduler_for(opened(0), None, 9), Controller()
    silent, failed = RayTrial(0), RayTrial(1)
    for trial in (silent, failed):
        scheduler.on_trial_add(tune, trial)
    scheduler.on_trial_error(tune, failed)  # Tune itself completes this one
    silent.status = failed.status = "ERROR"
    for _ in range(2):
        assert scheduler.choose_trial_to_run(tune) is None
    assert tune.completed == ["id 0"]


@pytest.mark.parametrize(
    ("last", "lost"),
    [
        ("The actor is dead because its node has died.", True),
        ("The actor is dead because its owner has died.", True),
        ("The actor 1a is unavailable: RPC error: Socket closed.", True),
        ("The actor died because its node was terminated unexpectedly.", True),
        ("The actor's node was preempted.", True),
        ("The actor is dead because its worker process has died.", False),
        ("RuntimeEnvSetupError: Failed to set up runtime environment.", False),
    ],
)
def test_a_lost_node_differs_from_a_dead_worker(
    make_search: Make, tmp_path: Path, last: str, lost: bool
) -> None:
    study = opened(1)
    asked(study, make_search, 1)
    file = tmp_path / "error.txt"
    file.write_text(f"Failure # 1\nits node has died.\nFailure # 2\n{last}\n")
    scheduler_for(study, None, 9).on_trial_error(None, RayTrial(0, error_file=str(file)))
    assert (0 in study.node_lost) is lost
    assert study.records[0].end is None
