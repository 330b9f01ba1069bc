"""What must hold on a cluster: each failure names what is wrong and what to do."""

import ast
import socket
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import ray
from packaging.utils import canonicalize_name
from ray._private.authentication import authentication_utils

from search import running
from search.running import preflight
from search.running.preflight import (
    NODE_PACKAGES,
    node_checks,
    tracking_failure,
    versions,
    write_marker,
)

ROOT = Path(__file__).parents[3]


def asked(storage: Path, token: str, *files: Path) -> dict[str, str]:
    return {check.name: check.ask() for check in node_checks(storage, token, files)}


@pytest.fixture
def node_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def make(address: str, token: bool = False) -> None:
        monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
        monkeypatch.setattr(authentication_utils, "is_token_auth_enabled", lambda: token)

    return make


def test_this_machine_passes(tmp_path: Path, node_at: Callable[..., None]) -> None:
    node_at("127.0.0.1")
    token = write_marker(tmp_path / "searches")
    assert set(asked(tmp_path / "searches", token, Path(__file__)).values()) == {""}
    assert [file.name for file in (tmp_path / "searches").iterdir()] == [token]


def test_every_package_has_a_version() -> None:
    installed = versions()
    assert set(installed) == {"python", *NODE_PACKAGES}
    assert "none" not in installed.values()


ASKED = (
    "search.running.trial",
    "search.running.resolve_auto",
    "search.study.start_or_resume",
    "trainer.training.probe",
    "search.running.preflight",
)
"""Modules of what a driver has workers do."""
NAMES = {"PIL": "pillow", "ruamel": "ruamel.yaml", "sklearn": "scikit-learn"}
"""Packages that are imported under another name."""


def imported(module: str, *, at_once: bool) -> set[str]:
    """Full names of what a module of ours imports; `at_once` leaves out what its functions do."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    names: set[str] = set()
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{name.name}" for name in node.names)}
    return names


def needed(*, at_once: bool) -> set[str]:
    """Distributions that the code which workers run imports, and all of ours that it imports."""
    ours, others, ahead = set(), set(), [*ASKED]
    while ahead:
        module = ahead.pop()
        if module in ours or not (ROOT / f"{module.replace('.', '/')}.py").is_file():
            continue
        ours.add(module)
        for name in imported(module, at_once=at_once):
            top = name.partition(".")[0]
            if top in ("trainer", "search", "clusters"):
                ahead.append(name)
            elif top not in sys.stdlib_module_names:
                others.add(top)
    return {canonicalize_name(NAMES.get(top, top)) for top in others}


def test_the_packages_are_those_that_a_trial_imports() -> None:
    listed = {canonicalize_name(package) for package in NODE_PACKAGES}
    assert needed(at_once=True) <= listed <= needed(at_once=False)


def test_a_node_that_cannot_import_a_trial_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = node_checks(tmp_path, write_marker(tmp_path), [])
    monkeypatch.delattr(running, "trial", raising=False)
    monkeypatch.setitem(sys.modules, "search.running.trial", None)  # as if a package were missing
    message = {check.name: check.ask() for check in wanted}["imports"]
    assert message.startswith("no trial can start here (ModuleNotFoundError: ")
    assert message.endswith(": install what clusters/constraints.txt says")


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = node_checks(tmp_path, write_marker(tmp_path), [])
    monkeypatch.setattr(preflight, "version", lambda name: "0.1" if name == "torch" else "none")
    message = {check.name: check.ask() for check in wanted}["versions"]
    assert f"torch 0.1, not {version('torch')}; torchvision none, not " in message
    assert message.endswith("install what clusters/constraints.txt says")


def test_writing_a_token_makes_the_storage(tmp_path: Path) -> None:
    storage = tmp_path / "new" / "searches"
    token = write_marker(storage)
    assert write_marker(storage) != token
    (storage / token).write_text("of another")
    assert "has other contents than" in asked(storage, token)["storage"]


def test_a_storage_that_is_not_the_drivers_is_refused(tmp_path: Path) -> None:
    token = write_marker(tmp_path / "shared")
    assert "mount one folder there" in asked(tmp_path / "other", token)["storage"]
    (tmp_path / "other").mkdir()
    assert "is not the driver's" in asked(tmp_path / "other", token)["storage"]


def test_a_storage_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = write_marker(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    message = asked(tmp_path, token)["storage"]
    assert message.startswith(f"{tmp_path} cannot be written (Permission denied): ")


def test_data_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "images" / "a.png"
    message = asked(tmp_path, write_marker(tmp_path), Path(__file__), missing)["data"]
    assert message.startswith(f"{missing} cannot be read (No such file or directory)")


@pytest.mark.parametrize(
    ("address", "token", "open_to_all"),
    [("127.0.0.1", False, False), ("10.0.0.2", True, False), ("10.0.0.2", False, True)],
)
def test_a_node_in_a_network_wants_a_token(
    tmp_path: Path,
    node_at: Callable[..., None],
    address: str,
    token: bool,
    open_to_all: bool,
) -> None:
    node_at(address, token)
    message = asked(tmp_path, write_marker(tmp_path))["token"]
    assert ("RAY_AUTH_MODE=token" in message) is open_to_all


def test_mlflow_is_tried_where_it_should_be(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert tracking_failure(uri) == ""
    assert "does not answer" in tracking_failure(uri)
    assert tracking_failure("off") == ""
    assert tracking_failure(f"sqlite:///{tmp_path}/mlflow.db") == ""
    message = tracking_failure(f"sqlite:///{tmp_path}/none/mlflow.db")
    assert message.startswith(f"tracking: {tmp_path}/none cannot be written; ")


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("https://mlflow.lab/api", ("mlflow.lab", 443)),
        ("http://mlflow.lab", ("mlflow.lab", 80)),
        ("https://mlflow.lab:5000", ("mlflow.lab", 5000)),
    ],
)
def test_mlflow_is_tried_at_its_port(
    monkeypatch: pytest.MonkeyPatch, uri: str, asked: tuple[str, int]
) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> None:
        assert timeout > 0
        raise ConnectionRefusedError(f"asked {address}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    message = f"tracking: {asked[0]}:{asked[1]} does not answer (asked {asked}); "
    assert tracking_failure(uri).startswith(message)
