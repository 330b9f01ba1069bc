"""Joining a Ray: a new one for this process, the one of this machine, or that of a cluster."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError, RayError

from .definitions import ClusterConnectionError, find_definition, head_address
from .local import private_ray
from .private_folders import staged
from .ray_internals import is_node, is_slow_start, process_groups
from .tokens import TOKEN_REFUSED, use_token

WORKER_ENVIRONMENT = {
    # Keep freed memory in the process: training frees and allocates the same large tensors in each
    # step, and giving them back to the system costs a page fault for every 4 KiB.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    # A trial without a GPU sees none; by default Ray hides none from it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Tune would change into folders that nobody looks into.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Tune waits so long for the thread of a stopped trial. By default these are 2 s; a busy machine
    # takes longer, and then Tune could not use the worker again.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}
OBJECT_STORE_BYTES = 256 * 2**20
"""The object store of a local Ray: nothing but annotations and reports passes through it."""
PROBE_SECONDS = 5.0
"""How long to wait for a head to accept a connection, and then to name its nodes."""
RAY_ERRORS = (AuthenticationError, ConnectionError, TimeoutError, RuntimeError, ValueError)
"""What `ray.init` raises if it cannot join or start a Ray."""


@contextlib.contextmanager
def connected(cluster: str, packages: list[Path]) -> Iterator[None]:
    """Stay connected to a cluster; workers import these packages before any others.

    `cluster` is `local`, `auto`, the address of a head, or a definition.
    Raises ClusterConnectionError.
    """
    # By default, Ray reports its usage over the network.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # By default, a Ray job keeps its working_dir and ignores ours.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    address = _address(cluster)
    if cluster != "local":
        use_token()
    _probe(cluster, address)
    with contextlib.ExitStack() as held:
        code = held.enter_context(staged(packages))
        files = held.enter_context(private_ray()) if address == "local" else None
        try:
            _init(address, code, files)
        except Exception as error:
            if not isinstance(error, RAY_ERRORS) and not is_slow_start(error):
                raise
            raise ClusterConnectionError(f"cluster: {cluster}: {_reason(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _address(cluster: str) -> str:
    """The address to give to `ray.init`. Raises ClusterConnectionError."""
    file = find_definition(cluster)
    if file is None or cluster == "auto":
        return cluster
    # Ray sets RAY_ADDRESS in its jobs: this process already runs on the cluster.
    return "auto" if "RAY_ADDRESS" in os.environ else head_address(file)


def _probe(cluster: str, address: str) -> None:
    """Raise ClusterConnectionError if nothing listens there, or this machine is none of its nodes.

    Ray itself would try for minutes.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise ClusterConnectionError(
            f"cluster: {cluster}: nothing answers there ({error})"
        ) from error
    if address.startswith("ray://"):
        return
    try:
        joined = is_node(address, PROBE_SECONDS)
    except RayError as error:
        raise ClusterConnectionError(f"cluster: {cluster}: {_reason(error)}") from error
    if not joined:
        raise ClusterConnectionError(
            f"cluster: {cluster}: this machine is none of its nodes; add --detach, or run the same "
            "command on a node"
        )


def _init(address: str, code: Path, files: Path | None) -> None:
    """Join the Ray at an address, or start one with its files in `files`."""
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
    with process_groups():
        init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(files),
        )


def _reason(error: Exception) -> str:
    """Why `ray.init` failed, and what to do, in one line."""
    if is_slow_start(error):
        return (
            "Ray's processes on this machine took more than 30 s to start; end other programs that "
            "keep it busy, then run the same command again"
        )
    cause: BaseException | None = error
    while cause is not None:
        # Ray tries again for a while, then puts the text of its last error into a new one.
        if isinstance(cause, AuthenticationError) or "AuthenticationError" in str(cause):
            return TOKEN_REFUSED
        cause = cause.__cause__ or cause.__context__
    return f"no Ray cluster answers ({(str(error).splitlines() or [type(error).__name__])[0]})"
