"""Joining a Ray: one made for this process, the one this machine belongs to, or another by its
address or definition."""

import contextlib
import logging
import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import ray
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import find_node_ids
from ray.exceptions import AuthenticationError

from .definitions import CannotConnect, Node, find, growth, head_address
from .local import private_folder, secluded

WORKER_ENVIRONMENT = {
    # keep freed memory in the process: training frees and takes the same large tensors each step,
    # and giving them back costs a page fault for every 4 KiB
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    # a trial that was given no GPU sees none; Ray would hide none from it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # of Tune: it would make folders that nobody looks into
    # of Tune too: a starved machine takes longer than its 2 s to see a stopped trial's thread off,
    # and its worker could not be used again
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}
OBJECT_STORE_BYTES = 256 * 2**20
"""Of a Ray of our own: only annotations and reports pass through it."""
PROBE_SECONDS = 5.0
TOKEN = Path("~/.ray/auth_token")
"""Of the clusters that this account joins; Ray's own place for it."""
REFUSED = (
    "it refuses our token, or we have none; put the cluster's into ~/.ray/auth_token, or name its "
    "file in RAY_AUTH_TOKEN_PATH"
)


@contextlib.contextmanager
def connected(cluster: str, packages: list[Path]) -> Iterator[None]:
    """Be connected to a cluster, with these packages on every worker, ahead of all others.

    `cluster` is `local`, `auto`, the address of a head, or a definition. Raises CannotConnect.
    """
    # set before Ray starts: it would otherwise report usage to its makers over the network
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # a Ray job has a working_dir of its own, which Ray would not let us replace by ours
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    address = _address(cluster)
    _probe(cluster, address)
    if cluster != "local":
        use_token()
    with contextlib.ExitStack() as held:
        code = held.enter_context(staged(packages))
        files = held.enter_context(secluded()) if address == "local" else None
        try:
            _connect(address, code, files)
        except (
            AuthenticationError,
            ConnectionError,
            TimeoutError,
            RuntimeError,
            ValueError,
        ) as error:
            raise CannotConnect(f"cluster: {cluster}: {_reason(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _address(cluster: str) -> str:
    """As Ray wants it. Raises CannotConnect."""
    file = find(cluster)
    if file is None or cluster == "auto":
        return cluster
    return "auto" if "RAY_ADDRESS" in os.environ else head_address(file)  # a job is there already


def _probe(cluster: str, address: str) -> None:
    """Raise CannotConnect where nobody listens, or no node is here: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise CannotConnect(f"cluster: {cluster}: nothing answers there ({error})") from error
    if not address.startswith("ray://") and not find_node_ids():  # type: ignore[no-untyped-call]
        raise CannotConnect(
            f"cluster: {cluster}: this machine is none of its nodes; add --detach, or run the same "
            "line on one"
        )


def use_token() -> None:
    """Show clusters the token of this machine, if it has one: to an address, Ray itself does not
    unless RAY_AUTH_MODE says so."""
    _protect_token()
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _protect_token() -> None:
    """Have no other account read it: `ray get-auth-token` leaves that to the umask."""
    for place in (TOKEN.expanduser(), TOKEN.expanduser().parent):
        with contextlib.suppress(OSError):  # not there, or not ours
            if not place.is_symlink() and place.stat().st_mode & 0o077:
                place.chmod(stat.S_IMODE(place.stat().st_mode) & 0o700)


def _reason(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        # Ray tries again for a while, and then tells of the last error in the text of its own
        if isinstance(cause, AuthenticationError) or "AuthenticationError" in str(cause):
            return REFUSED
        cause = cause.__cause__ or cause.__context__
    return f"no Ray cluster answers ({(str(error).splitlines() or [type(error).__name__])[0]})"


def _connect(address: str, code: Path, files: Path | None) -> None:
    environment = {
        "working_dir": str(code),
        "env_vars": {**WORKER_ENVIRONMENT, "PYTHONPATH": ""},
    }
    init = partial(
        ray.init, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR
    )
    if files is None:
        init(address=address)
        return
    with _groups_of_their_own():
        init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(files),
        )


_starting_ray = False


@contextlib.contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """Have the processes that Ray starts meanwhile lead process groups. A SIGTERM to ours, as batch
    systems send it, is then the driver's alone, which still needs Ray to end in order."""
    global _starting_ray
    _starting_ray = True
    try:
        yield
    finally:
        _starting_ray = False


def _lead_a_group() -> None:
    if _starting_ray:
        os.setpgid(0, 0)


os.register_at_fork(after_in_child=_lead_a_group)  # Ray has no setting for it


@contextlib.contextmanager
def staged(packages: list[Path]) -> Iterator[Path]:
    """A folder with copies of exactly these packages: what a worker imports."""
    with private_folder() as folder:
        for package in packages:
            shutil.copytree(
                package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        yield folder


def nodes() -> list[Node]:
    """The machines that are alive now."""
    return [
        _node(node["Resources"])
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def _node(resources: dict[str, float]) -> Node:
    own = ("CPU", "GPU", "memory", "object_store_memory")
    others = {n: v for n, v in resources.items() if n not in own and not n.startswith("node:")}
    return Node(resources.get("CPU", 0), resources.get("GPU", 0), others)


def may_have(cluster: str) -> list[Node]:
    """The machines that autoscaling may make of this cluster; empty where it has none."""
    file = find(cluster)
    return growth(file) if file else []


def slots(
    machines: list[Node], cpus: float, gpus: float, others: Mapping[str, float] | None = None
) -> int:
    """How many trials of this size these machines hold at once."""
    return sum(_fit(node, cpus, gpus, others or {}) for node in machines)


def _fit(node: Node, cpus: float, gpus: float, others: Mapping[str, float]) -> int:
    fits = [int(node.others.get(name, 0) / n + 1e-6) for name, n in others.items()]
    if cpus:
        fits.append(int(node.cpus / cpus + 1e-6))
    if gpus:
        # a fraction stays on one device: three trials of 0.4 need two GPUs
        a_gpu = int(1 / gpus + 1e-6)
        fits.append(int(node.gpus) * a_gpu if gpus < 1 else int(node.gpus / gpus + 1e-6))
    return min(fits, default=10**6)
