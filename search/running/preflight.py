"""What must hold on a cluster before a search starts: asked on every node, or of the driver.

Imports nothing that a node may lack, since it is there to say so.
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

PACKAGES = (
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
"""What a trial imports; another version may compute something else. A test holds it to the code."""
SECONDS = 5.0


def node_checks(storage: Path, token: str, files: Iterable[Path]) -> list[Check]:
    """To be asked of every node; `token` is what `write_token` wrote into the storage."""
    return [
        Check("versions", partial(_other_versions, versions())),
        Check("imports", _cannot_import),
        Check("storage", partial(_other_storage, storage, token)),
        Check("data", partial(_unreadable, list(files))),
        Check("token", _open_to_all),
    ]


def versions() -> dict[str, str]:
    """Python's and the packages', as they are in this process."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _other_versions(wanted: dict[str, str]) -> str:
    here = versions()
    other = [f"{n} {here[n]}, not {v}" for n, v in wanted.items() if here[n] != v]
    return f"{'; '.join(other)}: install what clusters/constraints.txt says" if other else ""


def _cannot_import() -> str:
    try:
        from . import trial  # noqa: F401  # with what its packages need in their turn
    except Exception as error:  # a package, a library of the system's
        why = f"{type(error).__name__}: {error}"
        return f"no trial can start here ({why}): install what clusters/constraints.txt says"
    return ""


def write_token(storage: Path) -> str:
    """Leave a file in the storage that other nodes can find; returns its name."""
    storage.mkdir(parents=True, exist_ok=True)
    token = f".preflight-{uuid.uuid4().hex}"
    (storage / token).write_text(token)
    return token


def _other_storage(storage: Path, token: str) -> str:
    try:
        if (storage / token).read_text() != token:
            return f"{storage} holds something else than on the driver's machine"
        own = storage / f"{token}-{uuid.uuid4().hex}"
        own.write_text(token)
        own.unlink()
    except FileNotFoundError:
        return f"{storage} is not the driver's: mount one folder there on all nodes"
    except OSError as error:
        return f"{storage} cannot be written ({error.strerror}): mount it there for writing"
    return ""


def _unreadable(files: list[Path]) -> str:
    for file in files:
        try:
            with file.open("rb") as stream:
                stream.read(1)
        except OSError as error:
            return f"{file} cannot be read ({error.strerror}): share its folder with all nodes"
    return ""


def _open_to_all() -> str:
    """Whether anybody in the network could run code on this node."""
    import ray
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if ipaddress.ip_address(address).is_loopback or is_token_auth_enabled():
        return ""
    return "anybody who reaches the cluster can run code there: start Ray with RAY_AUTH_MODE=token"


def tracking_failure(uri: str) -> str:
    """Why the driver does not reach MLflow, with the mend; nothing when it does."""
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=SECONDS).close()
        except OSError as error:
            return (
                f"tracking: {parts.hostname}:{port} does not answer ({error}); start MLflow there, "
                "or give another tracking (off: none)"
            )
    if parts.scheme == "sqlite":
        folder = Path(uri.removeprefix("sqlite:///")).parent
        if not os.access(folder, os.W_OK):
            return f"tracking: {folder} cannot be written; give another tracking (off: none)"
    return ""
