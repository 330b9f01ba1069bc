"""MLflow's own pages on this project's store, for this machine only."""

import subprocess
import sys
from pathlib import Path

from trainer.config import BadInput

from .config import tracking_uri


def serve(tracking: str | None, port: int) -> int:
    """Run MLflow's server on loopback until Ctrl+C; returns its exit code.

    Raises BadInput when there is nothing to show.
    """
    uri = tracking_uri(tracking)
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        raise BadInput([f"no MLflow store {file}; run it where the search was started"])
    if uri.startswith("http"):
        print(f"this store has a server of its own: {uri}")
        return 0
    print(f"http://127.0.0.1:{port} (Ctrl+C ends it)")
    print(f"from another machine: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE", flush=True)
    line = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    line += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    line += ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    try:
        return subprocess.run(line, check=False).returncode
    except KeyboardInterrupt:
        return 0
