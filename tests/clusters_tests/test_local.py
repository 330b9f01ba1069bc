"""The Ray of a local search: no other account reads, replaces or reaches what belongs to it."""

import os
import stat
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import ray

from clusters.connect import connected
from clusters.private_folders import is_safe

CLUSTERS = Path(__file__).parents[2] / "clusters"


def mode(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


def test_it_listens_on_loopback_and_answers_those_who_show_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # long: its sockets would not fit
    before, others = dict(os.environ), children()
    with connected("local", [CLUSTERS]):
        assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
        (node,) = ray.nodes()  # type: ignore[no-untyped-call]
        assert node["NodeManagerAddress"] == "127.0.0.1"
        files = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
        assert mode(files) == 0o700 and is_safe(files.parent)
        assert mode(files / "token") == 0o600
        assert next((files / "ray").glob("session_2*/sockets/plasma_store")).is_socket()
        (code,) = (files / "ray").glob("session_2*/runtime_resources/working_dir_files/*/clusters")
        assert (code / "connect.py").is_file()
        for pid in children() - others:
            with suppress(ProcessLookupError):  # one that has ended since
                assert os.getpgid(pid) == pid
        answers: list[int | None] = []
        deadline = time.monotonic() + 240
        while answers.count(401) < 2 and time.monotonic() < deadline:  # its agents start last
            ports = listening()
            answers = [answer(port) for _, port in ports]
        assert {address for address, _ in ports if not is_loopback(address)} == set()
    assert answers.count(401) >= 2  # the agents, which could start programs
    assert {a for a in answers if a not in (401, None)} <= {405}  # metrics, which take no POST
    assert not (tmp_path / ".ray").exists() and not files.exists()
    assert os.environ.get("RAY_AUTH_TOKEN_PATH") == before.get("RAY_AUTH_TOKEN_PATH")


def children() -> set[int]:
    """Numbers of the processes that this process has started."""
    return {process.pid for process in psutil.Process().children()}


def listening() -> set[tuple[str, int]]:
    """Where this process, and those that it has started, listen."""
    ours = psutil.Process()
    connections = []
    for process in (ours, *ours.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # Ray starts some that end at once
            connections += process.net_connections("inet")
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
    }


def is_loopback(address: str) -> bool:
    given = ip_address(address)
    return (getattr(given, "ipv4_mapped", None) or given).is_loopback


def answer(port: int) -> int | None:
    """The status of a request without a token; None of what does not speak HTTP/1."""
    place = f"http://127.0.0.1:{port}/get_or_create_runtime_env"
    try:
        with urllib.request.urlopen(place, data=b"{}", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
    except Exception:  # what http.client raises at the greeting of gRPC
        return None
