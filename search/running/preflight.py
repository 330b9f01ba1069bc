"""What must hold on a cluster before a search starts: checked on every node, or by the driver.

This file imports nothing that a node may lack: it reports what is missing.
"""

import ipaddress
import os
import platform
import socket
import uuid
from collections.abc import Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from clusters.preflight import Check

NODE_PACKAGES = (
    "ray",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "pycocotools",
    "hotcoco",
    "pydantic",
    "ruamel.yaml",
    "safetensors",
    "msgspec",
    "filelock",
    "psutil",
    "matplotlib",
    "huggingface_hub",
    "optuna",
    "rich",
    "sqlalchemy",
)
"""What a trial imports: another version may compute something else. A test compares this list with
the imports."""
TRACKING_SECONDS = 5.0
"""How long to wait for an MLflow server."""


def node_checks(storage: Path, token: str, files: Iterable[Path]) -> list[Check]:
    """The checks for every node.

    Args:
        storage: The folder of all searches, which each node must share with the driver.
        token: The file that `write_marker` left in it.
        files: Pictures and weights that a trial reads.
    """
    return [
        Check("versions", partial(_check_versions, versions())),
        Check("imports", _check_imports),
        Check("storage", partial(_check_storage, storage, token)),
        Check("data", partial(_check_files, list(files))),
        Check("token", _check_authentication),
    ]


def versions() -> dict[str, str]:
    """The versions of Python and of PACKAGES in this process."""
    return {"python": platform.python_version()} | {name: _version(name) for name in NODE_PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _check_versions(wanted: dict[str, str]) -> str:
    here = versions()
    wrong = [f"{n} {here[n]}, not {v}" for n, v in wanted.items() if here[n] != v]
    return f"{'; '.join(wrong)}: install what clusters/constraints.txt says" if wrong else ""


def _check_imports() -> str:
    try:
        from . import trial  # noqa: F401  # with all that its packages import
    except Exception as error:  # a missing package or system library
        why = f"{type(error).__name__}: {error}"
        return f"no trial can start here ({why}): install what clusters/constraints.txt says"
    return ""


def write_marker(storage: Path) -> str:
    """Leave a file in the storage for the other nodes to read; returns its name."""
    storage.mkdir(parents=True, exist_ok=True)
    token = f".preflight-{uuid.uuid4().hex}"
    (storage / token).write_text(token)
    return token


def _check_storage(storage: Path, token: str) -> str:
    try:
        if (storage / token).read_text() != token:
            return (
                f"{storage} has other contents than on the driver's machine: mount one folder "
                "there on all nodes"
            )
        probe = storage / f"{token}-{uuid.uuid4().hex}"
        probe.write_text(token)
        probe.unlink()
    except FileNotFoundError:
        return f"{storage} is not the driver's: mount one folder there on all nodes"
    except OSError as error:
        return f"{storage} cannot be written ({error.strerror}): mount it there for writing"
    return ""


def _check_files(files: list[Path]) -> str:
    for file in files:
        try:
            with file.open("rb") as stream:
                stream.read(1)
        except OSError as error:
            return f"{file} cannot be read ({error.strerror}): share its folder with all nodes"
    return ""


def _check_authentication() -> str:
    """Check that nobody in the network can run code on this node without a token."""
    import ray

    from clusters.ray_internals import asks_for_token

    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if ipaddress.ip_address(address).is_loopback or asks_for_token():
        return ""
    return "anybody who reaches the cluster can run code there: start Ray with RAY_AUTH_MODE=token"


def tracking_failure(uri: str) -> str:
    """Why the driver does not reach MLflow, and what to do; empty if it does."""
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=TRACKING_SECONDS).close()
        except OSError as error:
            return (
                f"tracking: {parts.hostname}:{port} does not answer ({error}); start MLflow there, "
                "or set tracking to another URI, or to off"
            )
    if parts.scheme == "sqlite":
        folder = Path(uri.removeprefix("sqlite:///")).parent
        if not os.access(folder, os.W_OK):
            return f"tracking: {folder} cannot be written; set tracking to another URI, or to off"
    return ""
