"""Joining a Ray: one made for this process, the one this machine belongs to, or an address."""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray

WORKER_ENVIRONMENT = {
    # keep freed memory in the process: training frees and takes the same large tensors each step,
    # and giving them back costs a page fault for every 4 KiB
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # of Tune: it would make folders that nobody looks into
    # of Tune too: a starved machine takes longer than its 2 s to see a stopped trial's thread off,
    # and its worker could not be used again
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}
OBJECT_STORE_BYTES = 256 * 2**20
"""Of a Ray of our own: only annotations and reports pass through it."""


PROBE_SECONDS = 5.0


class CannotConnect(Exception):
    """No Ray cluster answers there."""


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float


@contextlib.contextmanager
def connected(cluster: str, packages: list[Path]) -> Iterator[None]:
    """Be connected to a cluster, with these packages on every worker, ahead of all others.

    `cluster` is `local`, `auto` or the address of a head. Raises CannotConnect.
    """
    # set before Ray starts: it would otherwise report usage to its makers over the network
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _probe(cluster)
    with _staged(packages) as code:
        try:
            _connect(cluster, code)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CannotConnect(f"cluster: {cluster}: no Ray cluster answers ({reason})") from error
        try:
            yield
        finally:
            ray.shutdown()


def _probe(cluster: str) -> None:
    """Raise CannotConnect where nobody listens at an address: Ray itself would try for minutes."""
    host, colon, port = cluster.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
        except OSError as error:
            raise CannotConnect(f"cluster: {cluster}: nothing answers there ({error})") from error


def _connect(cluster: str, code: Path) -> None:
    environment = {
        "working_dir": str(code),
        "env_vars": {**WORKER_ENVIRONMENT, "PYTHONPATH": ""},
    }
    init = partial(
        ray.init, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR
    )
    if cluster == "local":
        init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
    else:
        init(address=cluster)


@contextlib.contextmanager
def _staged(packages: list[Path]) -> Iterator[Path]:
    """A folder with copies of exactly these packages: what a worker imports."""
    with tempfile.TemporaryDirectory(prefix="unfreeze-code-") as folder:
        for package in packages:
            shutil.copytree(
                package, Path(folder) / package.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        yield Path(folder)


def nodes() -> list[Node]:
    """The machines that are alive now."""
    return [
        Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def slots(machines: list[Node], cpus: float, gpus: float) -> int:
    """How many trials of this size these machines hold at once."""
    return sum(_fit(node, cpus, gpus) for node in machines)


def _fit(node: Node, cpus: float, gpus: float) -> int:
    by_cpu = int(node.cpus / cpus + 1e-6) if cpus else 10**6
    if not gpus:
        return by_cpu
    # a fraction stays on one device: three trials of 0.4 need two GPUs
    by_gpu = int(node.gpus) * int(1 / gpus + 1e-6) if gpus < 1 else int(node.gpus / gpus + 1e-6)
    return min(by_cpu, by_gpu)
