"""MLflow's web pages on a store, for this machine only."""

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from trainer.config import InputError
from trainer.text.redaction import redacted

from ..reporting.console import print_plain
from ..space.locations import tracking_uri
from ..space.validation import uri_errors

HOST = "127.0.0.1"
RUNS = "runs?workflowType=machine_learning&orderByKey=metrics.%60best_map%60&orderByAsc=false"
"""The list of an experiment's runs, the best first. Without the type MLflow shows columns for
language models."""
SHOWN = 10
"""Searches whose pages are listed, the latest first."""


def serve(tracking: str | None, port: int) -> int:
    """Run MLflow's server on loopback until Ctrl+C.

    Returns:
        An exit code: 0 after Ctrl+C, 1 if the server failed.

    Raises:
        InputError: there is nothing to show, or the port is taken.
    """
    uri = tracking_uri(tracking)
    if uri == "off":
        raise InputError(["tracking: off, so there is no store to show"])
    if errors := uri_errors(uri):
        raise InputError(errors)
    if not 0 < port < 2**16:
        raise InputError([f"--port {port} (legal: 1 to {2**16 - 1})"])
    if uri.startswith("sqlite:///"):
        _prepare_file(Path(uri.removeprefix("sqlite:///")))
    if uri.startswith("http"):
        for line in _pages_of_a_server(uri):
            print_plain(line)
        return 0
    _check_port(port)
    for line in page_lines(uri, port):
        print_plain(line)
    return _run_server(uri, port)


def _prepare_file(file: Path) -> None:
    """Check that a SQLite store exists, and complete its tables. Raises InputError."""
    if not file.is_file():
        raise InputError([f"no MLflow store {file}; run it where the search was started"])
    from .database import UnusableDatabaseError, ensure_tables

    try:
        ensure_tables(file)
    except UnusableDatabaseError as error:
        raise InputError([str(error)]) from error


def _check_port(port: int) -> None:
    """Raises InputError where another program has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError([f"--port {port}: {error.strerror}; choose another"]) from error


def _run_server(uri: str, port: int) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = subprocess.Popen(
        server_command(port), env=server_environment(uri), start_new_session=True
    )
    try:
        return int(server.wait() != 0)
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)  # MLflow does not stop its workers


def page_lines(uri: str, port: int) -> list[str]:
    """Lines with the address, the pages of searches, and how to open them from another machine."""
    address = f"http://{HOST}:{port}"
    lines = [f"{address} (Ctrl+C ends it)"]
    lines += [f"  {name}: {address}/#/experiments/{page}/{RUNS}" for name, page in _searches(uri)]
    # set where the user came by ssh: the client's address and port, then this machine's
    *_, host, _ = os.environ.get("SSH_CONNECTION", "").split() or ["", ""]
    if host:
        user = f"{getpass.getuser()}@{host}"
        lines.append(f"on your own machine: ssh -N -L {port}:{HOST}:{port} {user}")
    return lines


def _pages_of_a_server(uri: str) -> list[str]:
    """Lines with the pages of a server that has the store. Raises InputError without an answer."""
    from .tracking import describe_error, try_once

    try_once()
    try:
        searches = _searches(uri)
    except Exception as error:  # whatever a server or a network can do
        raise InputError(
            [f"tracking: {redacted(uri)} does not answer ({describe_error(error)})"]
        ) from error
    address = redacted(uri).rstrip("/")
    return [
        f"this store already has a server: {address}",
        *(f"  {name}: {address}/#/experiments/{page}/{RUNS}" for name, page in searches),
    ]


def _searches(uri: str) -> list[tuple[str, str]]:
    """Names and experiment ids of the latest searches."""
    from mlflow.tracking import MlflowClient

    experiments = MlflowClient(uri).search_experiments(order_by=["last_update_time DESC"])
    return [(e.name, e.experiment_id) for e in experiments if e.experiment_id != "0"][:SHOWN]


def server_command(port: int) -> list[str]:
    """The command line of MLflow's server: loopback only, one worker."""
    line = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    line += ["--allowed-hosts", f"{HOST}:{port},localhost:{port}", "--workers", "1"]
    return [*line, "--cors-allowed-origins", f"http://{HOST}:{port},http://localhost:{port}"]


def server_environment(uri: str) -> dict[str, str]:
    """The environment of MLflow's server.

    The store's URI may hold a password, which a command line would show. Pages may start no jobs,
    and MLflow sends no telemetry.
    """
    return os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
