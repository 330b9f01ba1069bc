"""Joining a Ray: how many trials fit, and what is said where none answers."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from clusters.connect import connected, nodes, slots, staged
from clusters.definitions import CannotConnect, Node


@pytest.mark.parametrize(
    ("machines", "cpus", "gpus", "found"),
    [
        ([], 1, 0, 0),
        ([Node(2, 0)], 1, 0, 2),
        ([Node(2, 0)], 2, 0, 1),
        ([Node(2, 0)], 3, 0, 0),
        ([Node(2, 0)], 1.5, 0, 1),
        ([Node(1, 0)], 0.1, 0, 10),
        ([Node(3, 0)], 0.3, 0, 10),
        ([Node(3, 0), Node(3, 0)], 2, 0, 2),
        ([Node(8, 2)], 1, 1, 2),
        ([Node(8, 2)], 8, 1, 1),
        ([Node(8, 2)], 1, 0.5, 4),
        ([Node(8, 2)], 1, 0.4, 4),
        ([Node(8, 1)], 1, 0.6, 1),
        ([Node(8, 1)], 1, 0.1, 8),
        ([Node(64, 1)], 1, 0.1, 10),
        ([Node(8, 0), Node(8, 1)], 1, 1, 1),
        ([Node(0, 4)], 1, 1, 0),
    ],
)
def test_slots_are_what_each_node_holds_by_itself(
    machines: list[Node], cpus: float, gpus: float, found: int
) -> None:
    assert slots(machines, cpus, gpus) == found


def test_nodes_are_those_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0, "memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 8.0}},
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    assert nodes() == [Node(4, 1), Node(2, 0), Node(0, 0)]


@pytest.fixture
def dead_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_is_told_quickly(dead_port: int, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{dead_port}"
    code = (
        "from clusters.connect import connected\n"
        "from clusters.definitions import CannotConnect\n"
        "try:\n"
        f"    with connected({address!r}, []): pass\n"
        "except CannotConnect as error: print(error)\n"
    )
    started = time.monotonic()  # in a process of its own: Ray itself would not give up
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith(f"cluster: {address}: ")
    assert "answers" in done.stdout
    assert time.monotonic() - started < 30


def test_what_is_no_address_is_told_in_one_line() -> None:
    with pytest.raises(CannotConnect) as raised, connected("no address", []):
        pass
    assert str(raised.value).startswith("cluster: no address: ")
    assert len(str(raised.value).splitlines()) == 1
    assert not ray.is_initialized()


def test_exactly_the_packages_arestaged_without_caches(tmp_path: Path) -> None:
    package = tmp_path / "mine"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "a.pyc").write_bytes(b"")
    (package / "inner").mkdir()
    (package / "inner" / "a.py").write_text("A = 1\n")
    (tmp_path / "other.py").write_text("")
    with staged([package]) as folder:
        files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
        assert files == ["mine/inner/a.py"]
    assert not folder.exists()


def test_who_was_given_no_gpu_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as of a machine that has one

    def seen() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    with connected("local", [Path(__file__).parents[2] / "clusters"]):
        assert ray.get(ray.remote(seen).remote()) == ""
