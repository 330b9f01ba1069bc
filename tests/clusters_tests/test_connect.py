"""Joining a Ray: what is said if none answers, and what a worker sees."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from clusters.connect import connected
from clusters.definitions import ClusterConnectionError
from clusters.ray_internals import STARTED_TOO_SLOWLY


@pytest.fixture
def dead_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_is_refused_quickly(dead_port: int, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{dead_port}"
    code = (
        "from clusters.connect import connected\n"
        "from clusters.definitions import ClusterConnectionError\n"
        "try:\n"
        f"    with connected({address!r}, []): pass\n"
        "except ClusterConnectionError as error: print(error)\n"
    )
    started = time.monotonic()  # in another process: Ray itself would not give up
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith(f"cluster: {address}: ")
    assert "answers" in done.stdout
    assert time.monotonic() - started < 30


def test_what_is_no_address_is_refused_in_one_line() -> None:
    with pytest.raises(ClusterConnectionError) as raised, connected("no address", []):
        pass
    assert str(raised.value).startswith("cluster: no address: ")
    assert len(str(raised.value).splitlines()) == 1
    assert not ray.is_initialized()


def test_a_worker_without_a_gpu_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as on a machine with a GPU

    def seen() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    with connected("local", [Path(__file__).parents[2] / "clusters"]):
        assert ray.get(ray.remote(seen).remote()) == ""


def test_a_ray_that_starts_too_slowly_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def time_out(**_: object) -> None:
        raise Exception(f"{STARTED_TOO_SLOWLY} This could happen because ...")

    monkeypatch.setattr(ray, "init", time_out)
    with pytest.raises(ClusterConnectionError) as raised, connected("local", []):
        pass
    assert str(raised.value).startswith("cluster: local: Ray's processes on this machine took more")
    assert str(raised.value).endswith("run the same command again")


def test_another_exception_of_ray_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(AssertionError, match="a bug"), connected("local", []):
        pass
