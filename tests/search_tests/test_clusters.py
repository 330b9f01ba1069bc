"""Searches on clusters: hosts in network namespaces, sshd, Slurm, each for real on this machine.

What must hold at the end is what must hold after every fault, see `check`.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.space.config_file import write_yaml
from search.study.lock import is_held
from search.study.search_state import SearchState
from trainer.config import Data

from ..clusters_tests.hosts import BIN, NEEDS_HOSTS, Host, Hosts, until
from .faulty import ROOT, Faulty, Make, check, edit, end_tree, prepare

pytestmark = [pytest.mark.cluster, NEEDS_HOSTS, pytest.mark.timeout(400)]

SLOW = "time.sleep(2)"
WAIT = 250.0


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


@pytest.fixture
def on_hosts(
    make_raw: Make, tmp_path: Path, hosts: Hosts
) -> Iterator[Callable[..., tuple[Faulty, list[Host]]]]:
    """A head that holds no trial, so many hosts that hold one each, and a search over them."""
    made: list[Faulty] = []

    def make(workers: int, plant: str = SLOW, **changes: Any) -> tuple[Faulty, list[Host]]:
        head, *others = [hosts.add() for _ in range(workers + 1)]
        head.ray(cpus=0)
        for host in others:
            host.ray(head)
        tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
        wanted = {"tracking": tracking, "cluster": f"{head.address}:6379", **changes}
        search = prepare(make_raw, tmp_path, plant, **wanted)
        on(head, search)
        made.append(search)
        return search, [head, *others]

    yield make
    for one in made:
        if one.process is not None:
            end_tree(one.process.pid)


def on(host: Host, search: Faulty) -> None:
    """Let a search's driver run on this host."""
    search.enter, search.environment = host.enter, host.environment


def trials_on(host: Host) -> int:
    return sum("ImplicitFunc.train" in line for line in host.processes())


# -- links and hosts ------------------------------------------------------------------------------


def test_links_go_down_for_seconds_and_for_good(on_hosts: Make, tiny_data: Data) -> None:
    search, (_, near, far) = on_hosts(2)
    search.start()
    until(lambda: trials_on(near) and trials_on(far), 120)
    far.link("down")
    time.sleep(5)
    far.link("up")
    time.sleep(2)
    assert "its node was lost" not in search.out and "its worker died" not in search.out
    far.link("down")
    until(lambda: "its node was lost" in search.out, 120)
    assert search.wait(WAIT) == 0, search.out
    assert "its worker died" not in search.out
    check(search, tiny_data, repeats=2)


def test_all_hosts_are_killed_and_one_is_added(
    on_hosts: Make, hosts: Hosts, tiny_data: Data
) -> None:
    search, (head, *workers) = on_hosts(2)
    search.start()
    search.until_epoch(2, 120)
    for host in workers:
        host.kill()
    until(lambda: "waiting for one" in search.out, 120)
    assert search.process is not None and search.process.poll() is None
    added = hosts.add()
    added.ray(head)
    until(lambda: trials_on(added), 60)
    assert search.wait(WAIT) == 0, search.out
    assert "its worker died" not in search.out
    check(search, tiny_data, repeats=2)


def test_a_host_is_added_and_used_at_once(on_hosts: Make, hosts: Hosts, tiny_data: Data) -> None:
    search, (head, *_) = on_hosts(1)
    search.start()
    search.until_epoch(2, 120)  # the head phase is done: another trial may start
    added = hosts.add()
    added.ray(head)
    until(lambda: trials_on(added), 60)
    assert search.wait(WAIT) == 0, search.out
    check(search, tiny_data)


def test_the_head_is_lost_and_the_same_command_continues_elsewhere(
    on_hosts: Make, hosts: Hosts, tiny_data: Data
) -> None:
    search, (head, worker) = on_hosts(1)
    search.start()
    search.until_epoch(2, 120)
    head.kill()
    worker.kill()
    search.wait(30)
    new = hosts.add()
    new.ray(cpus=1)
    search.raw["cluster"] = f"{new.address}:6379"
    on(new, search)
    search.start()
    assert search.wait(WAIT) == 0, search.out
    check(search, tiny_data, repeats=2)


# -- who may come in, and what is asked before ----------------------------------------------------


def test_a_wrong_or_missing_token_is_refused(on_hosts: Make) -> None:
    search, (head, _) = on_hosts(1)
    wrong = {"RAY_AUTH_TOKEN": "f" * 64}
    for environment in (wrong, {"RAY_AUTH_MODE": "disabled"}):
        search.environment = {**head.environment, **environment}
        search.start()
        assert search.wait(90) == 1, search.out
    assert search.out.count("refuses our token") == 2
    assert "Traceback" not in search.out
    for options in (["list", "--cluster", "auto"],):
        words = [sys.executable, "-P", "-m", "search.commands.cli", *options]
        job = head.start(*words, PYTHONPATH=str(search.code), **wrong)
        assert job.wait(60) == 1
    assert "refuses our token" in head.said
    assert not search.config.folder.exists()


def test_what_a_node_lacks_is_refused_before_anything_starts(
    on_hosts: Make, tmp_path: Path
) -> None:
    search, (_, worker) = on_hosts(1)
    storage = tmp_path / "searches"
    storage.mkdir()
    worker.run("mount", "-t", "tmpfs", "tmpfs", str(storage))
    search.start("--set", "tracking=http://127.0.0.1:9")
    assert search.wait(120) == 2, search.out
    lines = [line for line in search.out.splitlines() if not line.startswith("data: warnings")]
    assert (
        f"storage: {storage} is not the driver's: mount one folder there on all nodes" in lines[0]
    )
    assert lines[0].endswith(f"(on {worker.address})")
    assert lines[1].startswith("tracking: 127.0.0.1:9 does not answer")
    assert len(lines) == 2
    assert not search.config.folder.exists()


def test_a_machine_that_is_no_node_is_refused_with_what_to_do(on_hosts: Make, hosts: Hosts) -> None:
    search, _ = on_hosts(1)
    on(hosts.add(), search)
    search.start()
    assert search.wait(60) == 1
    assert "this machine is none of its nodes; add --detach" in search.out


def test_a_search_sent_to_the_cluster_is_stopped_from_afar_and_goes_on(
    on_hosts: Make, tiny_data: Data
) -> None:
    search, (head, _) = on_hosts(1)

    def send() -> None:
        search.start("--cluster", "auto", "--detach")
        assert search.wait(120) == 0, search.out

    send()
    search.until_epoch(2, 120)
    cli = [sys.executable, "-P", "-m", "search.commands.cli"]
    auto = ["--cluster", "auto"]
    head.run(*cli, "stop", search.config.name, *auto, PYTHONPATH=str(search.code))
    assert "its trials will stop within seconds" in head.said
    until(lambda: search.study.state == SearchState.STOPPED, 60)
    # the job still exports its winner; until it has ended, another one is refused
    head.run(*cli, "status", search.config.name, "--watch", *auto, PYTHONPATH=str(search.code))
    send()
    until(lambda: search.study.state == SearchState.DONE, WAIT)
    until(lambda: not is_held(search.config.folder), 60)  # the winner is exported
    check(search, tiny_data)


# -- ray up, and a search as a job ----------------------------------------------------------------


@pytest.mark.skipif(
    shutil.which("sshd") is None or shutil.which("rsync") is None,
    reason="needs Debian's openssh-server and rsync",
)
def test_ray_up_over_ssh_a_detached_search_and_ray_down(
    make_raw: Make, tmp_path: Path, hosts: Hosts, tiny_data: Data
) -> None:
    head, worker, desk = hosts.add(), hosts.add(), hosts.add()
    key = desk.home / ".ssh" / "id_ed25519"
    key.parent.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    for host in (head, worker):
        host.sshd(key.with_suffix(".pub").read_text())
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    search = prepare(make_raw, tmp_path, SLOW, tracking=tracking, cluster="auto")
    definition = filled_in(tmp_path, head, worker, key)
    ray = str(BIN / "ray")
    desk.run(ray, "up", "--yes", "--no-config-cache", str(definition), seconds=240)
    tunnel = desk.start(
        "ssh", "-N", "-o", "StrictHostKeyChecking=no", "-i", str(key),
        "-L", "8265:127.0.0.1:8265", f"root@{head.address}",
    )  # fmt: skip
    try:
        until(lambda: worker.has("raylet"), 120)
        on(desk, search)
        search.start("--cluster", str(definition), "--detach")
        assert search.wait(120) == 0, search.out  # the terminal is free: the search runs without it
        assert " at once, 1 CPU each" in search.out and "continues as job" in search.out
        cli = [sys.executable, "-P", "-m", "search.commands.cli"]
        name, code = search.config.name, str(search.code)
        for words in (["list"], ["status", name], ["status", name, "--watch"]):
            desk.run(*cli, *words, "--cluster", "auto", seconds=WAIT, PYTHONPATH=code)
        assert f"{name}" in desk.said and ": RUNNING" in desk.said
        assert "trial 0 epoch 1 head" in desk.said and "Winner: trial" in desk.said
        desk.run(ray, "down", "--yes", str(definition), seconds=120)
        # it ends Ray on the head; a node without a head ends its Ray within a minute
        until(lambda: not worker.has("raylet") and not head.has("raylet"), 100)
    finally:
        tunnel.kill()
    check(search, tiny_data)


def filled_in(place: Path, head: Host, worker: Host, key: Path) -> Path:
    """onprem.yaml with addresses, user and key; the environment is this one, not made anew."""
    file = place / "onprem.yaml"
    shutil.copy(ROOT / "clusters" / "onprem.yaml", file)
    edit(file, "HEAD_ADDRESS", head.address)
    edit(file, "[WORKER_ADDRESS_1, WORKER_ADDRESS_2]", f"[{worker.address}]")
    edit(file, "ssh_user: USER", "ssh_user: root")
    edit(file, "~/.ssh/id_ed25519", str(key))
    edit(file, "  - make -C ~/unfreeze venv PYTHON=python3.11\n", "  - 'true'\n")
    edit(file, "  ~/unfreeze: .\n", "")
    file.write_text(file.read_text().replace("~/unfreeze/.venv/bin", str(BIN)))
    file.write_text(
        file.read_text().replace("--disable-usage-stats", "--disable-usage-stats --num-cpus=1")
    )
    return file


# -- Slurm ----------------------------------------------------------------------------------------


@pytest.mark.skipif(
    shutil.which("slurmctld", path="/usr/sbin") is None or shutil.which("sbatch") is None,
    reason="needs Debian's slurm-wlm and munge",
)
def test_a_slurm_job_is_requeued_and_goes_on(
    make_raw: Make, tmp_path: Path, hosts: Hosts, tiny_data: Data
) -> None:
    host = hosts.add()
    slurm = host.slurm()
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    search = prepare(make_raw, tmp_path, SLOW, tracking=tracking)
    (tmp_path / "faulty.yaml").write_text(write_yaml(search.raw))
    log = tmp_path / "job.log"
    command = tmp_path / "bin" / "unfreeze"  # of this interpreter, wherever that was installed
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m search.commands.cli "$@"\n')
    command.chmod(0o755)
    host.run(
        "sbatch", "--nodes=1", "--cpus-per-task=1", "--gpus-per-node=0", "--time=20",
        f"--chdir={tmp_path}", f"--output={log}",
        str(ROOT / "clusters" / "slurm" / "search.sbatch"), "faulty.yaml",
        PYTHONPATH=str(search.code), UNFREEZE_BIN=str(command.parent), **slurm,
    )  # fmt: skip
    (tmp_path / "out").symlink_to(log)
    search.until_epoch(2, 150)
    host.run("scontrol", "requeue", "1", **slurm)
    until(lambda: log.read_text(errors="replace").count(" at once, ") == 2, 150)
    until(lambda: "Winner: trial" in log.read_text(errors="replace"), WAIT)
    check(search, tiny_data, repeats=2)
    until(lambda: "JobState=COMPLETED" in asked(host, slurm), 60)
    assert not list(tmp_path.glob(".ray-token-*"))


def asked(host: Host, slurm: dict[str, Any]) -> str:
    """What Slurm says of its one job."""
    host.run("scontrol", "show", "job", "1", **slurm)
    return host.said
