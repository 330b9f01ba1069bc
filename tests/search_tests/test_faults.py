"""Faults that may happen to a search in a night, planted in a real one on a tiny canvas.

Each test breaks something, lets the search reach its end, and calls `check`: study, MLflow,
table, export.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from clusters.tokens import use_token
from search.running.trial import STACKS_FILE
from search.space.locations import trial_folder
from search.study.record import End
from search.study.search_state import SearchState
from trainer.config import Data
from trainer.data.dataset import Splits
from trainer.model.checkpoint import LAST

from .faulty import (
    CHECKPOINT,
    CHECKPOINT_ENDS,
    Faulty,
    Make,
    Server,
    check,
    check_as_unbroken,
    edit,
    end_tree,
    prepare,
    repeated,
    until,
)

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def faulty(make_raw: Make, tmp_path: Path, server: Server) -> Iterator[Callable[..., Faulty]]:
    """See `prepare`."""
    made: list[Faulty] = []

    def make(plant: str = "", **changes: Any) -> Faulty:
        made.append(prepare(make_raw, tmp_path, plant, **{"tracking": server.uri, **changes}))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None:
            end_tree(one.process.pid)


# -- processes ------------------------------------------------------------------------------------


def test_a_worker_is_killed_in_an_epoch(faulty: Make, tiny: Splits, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    search.workers()[0].kill()
    assert search.wait() == 0, search.out
    study = check(search, tiny_data, repeats=1)
    hit = max(study.records, key=lambda n: repeated(search, n))
    check_as_unbroken(search, study, hit, tiny)


@pytest.mark.timeout(900)
def test_the_driver_is_killed_at_random_moments_until_done(
    faulty: Make, tiny: Splits, tiny_data: Data
) -> None:
    search = faulty("time.sleep(0.7)")
    moments = random.Random(0)
    for _ in range(5):
        search.start()
        time.sleep(moments.uniform(8, 18))
        if search.process is not None and search.process.poll() is None:
            search.kill()
    search.run()
    study = check(search, tiny_data, repeats=10)  # two trials at once, five kills
    check_as_unbroken(search, study, 0, tiny)


def test_a_worker_dies_while_it_writes_a_checkpoint(
    faulty: Make, tiny: Splits, tiny_data: Data
) -> None:
    search = faulty()
    edit(
        search.code / CHECKPOINT,
        CHECKPOINT_ENDS,
        "        torn = file.parents[1] / 'torn'\n"
        "        second = file.name == LAST and file.with_name(PREVIOUS).exists()\n"
        "        if second and not torn.exists():\n"
        "            torn.touch()\n"
        "            stream.flush()\n"
        "            stream.truncate(stream.tell() // 2)\n"
        "            os.kill(os.getpid(), 9)\n" + CHECKPOINT_ENDS,
    )
    search.run()
    study = check(search, tiny_data, repeats=1)
    check_as_unbroken(
        search, study, 0, tiny
    )  # the fault hit it: at first it ran alone, with the head phase


def test_a_worker_hangs(faulty: Make, tiny_data: Data) -> None:
    search = faulty(
        'if folder.name == "1" and epoch == 2 and not (folder / "hung").exists():\n'
        '    (folder / "hung").touch()\n'
        "    on_step()\n"
        "    time.sleep(1000)",
        search__hang_timeout=10,
    )
    search.start()
    stacks = trial_folder(search.config.folder, 1) / STACKS_FILE
    until(lambda: stacks.is_file() and "Timeout" in stacks.read_text(), 240)
    assert search.wait() == 0, search.out
    check(search, tiny_data, repeats=1)


def test_two_drivers_on_one_search(faulty: Make, tiny_data: Data) -> None:
    search = faulty()
    search.start()
    search.until_epoch(1)
    second = Faulty(search.place, search.code, search.raw)
    second.start()
    assert second.wait() == 1
    assert search.process is not None
    assert f"is being run by process {search.process.pid} on " in search.out
    assert search.wait() == 0, search.out
    check(search, tiny_data)


# a terminal sends Ctrl+C to all processes of a command, a batch system its SIGTERM
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_orderly(faulty: Make, tiny_data: Data, number: signal.Signals) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    assert search.process is not None
    os.killpg(search.process.pid, number)
    assert search.wait(120) == 1, search.out
    assert "The same command again continues." in search.out
    assert search.study.state == SearchState.INTERRUPTED
    assert not search.study.optuna.get_trials(states=(TrialState.RUNNING,))
    client = MlflowClient(str(search.config.tracking))
    experiment = client.get_experiment_by_name(search.config.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    search.run()
    check(search, tiny_data, repeats=2)


def test_it_is_asked_to_stop_from_another_terminal(faulty: Make, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    line = [sys.executable, "-P", "-m", "search.commands.cli", "stop", search.config.name]
    env = {**os.environ, "PYTHONPATH": str(search.code)}
    subprocess.run(line, cwd=search.place, env=env, check=True, stdout=subprocess.DEVNULL)
    assert search.wait(60) == 0, search.out
    assert search.study.state == SearchState.STOPPED
    search.run()
    check(search, tiny_data, repeats=2)


def test_its_time_is_over(faulty: Make, tiny_data: Data) -> None:
    search = faulty("time.sleep(4)", search__time_budget=25)
    search.start()
    assert search.wait() in (0, 1), search.out
    assert search.study.state == SearchState.OUT_OF_TIME
    assert not search.study.optuna.get_trials(states=(TrialState.RUNNING,))
    del search.raw["search"]["time_budget"]
    search.run()
    check(search, tiny_data, repeats=2)


def test_a_node_goes(faulty: Make, tiny_data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    use_token()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        search = faulty("time.sleep(0.5)", cluster=cluster.address)
        search.start()
        search.until_epoch(2)
        cluster.remove_node(nodes[0], allow_graceful=False)
        assert search.wait() == 0, search.out
        check(search, tiny_data, repeats=1)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def test_rays_own_processes_die(faulty: Make, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    assert search.process is not None
    for child in psutil.Process(search.process.pid).children(recursive=True):
        if child.name() == "raylet":
            child.kill()
    assert search.wait() == 1, search.out
    assert not search.study.ended()
    search.run()
    check(search, tiny_data, repeats=2)


# -- files ----------------------------------------------------------------------------------------


def test_the_latest_checkpoints_are_corrupt(faulty: Make, tiny: Splits, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.7)")
    search.start()
    search.until_epoch(3)
    search.kill()
    files = list((search.config.folder / "trials").glob(f"*/{LAST}"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    search.run()
    study = check(search, tiny_data, repeats=4)  # the running epoch, and the corrupt one
    check_as_unbroken(search, study, 0, tiny)


def test_the_journals_last_line_is_torn(faulty: Make, tiny_data: Data) -> None:
    search = faulty("time.sleep(0.5)")
    search.start()
    search.until_epoch(2)
    search.kill()
    with (search.config.folder / "study.journal").open("a") as journal:
        journal.write('{"op_code": 8, "worker_id": "x", "tri')
    search.run()
    check(search, tiny_data, repeats=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small tmpfs")
def test_the_disk_is_full(faulty: Make, tiny_data: Data, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        filler = small / "filler"
        filler.write_bytes(bytes(785 << 20))
        search = faulty(storage=str(small))
        search.start()
        assert search.wait() == 1, search.out
        assert "No space left on device" in search.out
        assert "Traceback" not in search.out
        filler.unlink()
        search.run()
        check(search, tiny_data, repeats=4)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


# -- what a trial comes to ------------------------------------------------------------------------


def test_a_trial_has_no_finite_loss(faulty: Make, tiny_data: Data) -> None:
    search = faulty(
        'if folder.name == "1" and epoch == 2:\n'
        '    next(state.learner.detector.head.parameters()).data.fill_(float("nan"))'
    )
    search.run()
    study = check(search, tiny_data, ends={1: End.DIVERGED})
    assert study.optuna.trials[1].state is TrialState.PRUNED
    assert len(study.records[1].reports) == 2


def test_a_trial_needs_more_memory_than_there_is(faulty: Make, tiny_data: Data) -> None:
    search = faulty('if folder.name == "1" and epoch == 2:\n    torch.empty(10**15)')
    search.run()
    study = check(search, tiny_data, ends={1: End.OUT_OF_MEMORY})
    assert "4000000000000000 bytes" in study.records[1].text


def test_ray_ends_a_worker_for_its_memory(
    faulty: Make, tiny_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    room = 3 << 30
    if memory.available < 3 * room:
        pytest.skip("needs 9 GiB of free memory")
    used = 1 - memory.available / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", str(used + room / memory.total))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    search = faulty(
        'if folder.name == "1" and epoch == 2:\n'
        "    hoard = []\n"
        "    for _ in range(60):\n"
        '        hoard.append(b"x" * (100 << 20))\n'
        "        time.sleep(0.1)\n"
        "    time.sleep(1000)"
    )
    search.run()
    check(search, tiny_data, ends={1: End.OUT_OF_MEMORY})


def test_a_bug_that_ends_three_trials_ends_the_search(faulty: Make) -> None:
    search = faulty('if epoch == 2:\n    {}["missing"]', search__trials=9)
    search.start()
    assert search.wait() == 1
    study = search.study
    assert study.state == SearchState.FAILED
    assert (
        "3 trials ended with the same error" in search.out and "KeyError: 'missing'" in search.out
    )
    assert len(study.ended()) < 6
    assert not study.optuna.get_trials(states=(TrialState.RUNNING,))
