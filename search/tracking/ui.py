"""MLflow's own pages on this project's store, for this machine only."""

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from trainer.config import BadInput
from trainer.text.redaction import redacted

from ..reporting.console import tell
from ..space.locations import tracking_uri
from ..space.validation import uri_errors

HOST = "127.0.0.1"
RUNS = "runs?workflowType=machine_learning&orderByKey=metrics.%60best_map%60&orderByAsc=false"
"""The list of an experiment's runs, the best first; without the type MLflow shows what language
models need."""
SHOWN = 10
"""Searches whose pages are told, the latest first."""


def serve(tracking: str | None, port: int) -> int:
    """Run MLflow's server on loopback until Ctrl+C; returns its exit code.

    Raises BadInput when there is nothing to show, or the port is taken.
    """
    uri = tracking_uri(tracking)
    if uri == "off":
        raise BadInput(["tracking: off, so there is no store to show"])
    if found := uri_errors(uri):
        raise BadInput(found)
    if not 0 < port < 2**16:
        raise BadInput([f"--port {port} (legal: 1 to {2**16 - 1})"])
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        raise BadInput([f"no MLflow store {file}; run it where the search was started"])
    if file != uri:
        from .database import Unusable, make_ready

        try:
            make_ready(Path(file))
        except Unusable as error:
            raise BadInput([str(error)]) from error
    if uri.startswith("http"):
        for line in _pages_of_a_server(uri):
            tell(line)
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInput([f"--port {port}: {error.strerror}; choose another"]) from error
    for line in told(uri, port):
        tell(line)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = subprocess.Popen(command(port), env=environment(uri), start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)  # MLflow leaves its workers behind


def told(uri: str, port: int) -> list[str]:
    """The address, the searches' pages, and how to come from another machine."""
    address = f"http://{HOST}:{port}"
    lines = [f"{address} (Ctrl+C ends it)"]
    lines += [f"  {name}: {address}/#/experiments/{page}/{RUNS}" for name, page in _searches(uri)]
    # client's address and port, then ours: set where somebody came by ssh
    *_, here, _ = os.environ.get("SSH_CONNECTION", "").split() or ["", ""]
    if here:
        who = f"{getpass.getuser()}@{here}"
        lines.append(f"on your own machine: ssh -N -L {port}:{HOST}:{port} {who}")
    return lines


def _pages_of_a_server(uri: str) -> list[str]:
    """Where a store that is a server's is to be seen. Raises BadInput where it does not answer."""
    from .tracking import reason, try_once

    try_once()
    try:
        found = _searches(uri)
    except Exception as error:  # whatever a server or a network can do
        raise BadInput([f"tracking: {redacted(uri)} does not answer ({reason(error)})"]) from error
    address = redacted(uri).rstrip("/")
    return [
        f"this store has a server of its own: {address}",
        *(f"  {name}: {address}/#/experiments/{page}/{RUNS}" for name, page in found),
    ]


def _searches(uri: str) -> list[tuple[str, str]]:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(uri).search_experiments(order_by=["last_update_time DESC"])
    return [(e.name, e.experiment_id) for e in found if e.experiment_id != "0"][:SHOWN]


def command(port: int) -> list[str]:
    """MLflow's command line: on loopback, for no other name of this machine, one process."""
    line = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    line += ["--allowed-hosts", f"{HOST}:{port},localhost:{port}", "--workers", "1"]
    return [*line, "--cors-allowed-origins", f"http://{HOST}:{port},http://localhost:{port}"]


def environment(uri: str) -> dict[str, str]:
    """Of the server: the store, which may hold a password that `ps` would show; no jobs, which a
    page could start; and nothing told to MLflow's makers."""
    return os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
