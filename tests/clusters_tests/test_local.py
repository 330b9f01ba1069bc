"""A Ray of one search's own: no other account reads, replaces or reaches what is its."""

import os
import stat
import tempfile
import time
import urllib.error
import urllib.request
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import ray

from clusters.connect import connected, staged, use_token
from clusters.definitions import CannotConnect
from clusters.local import MOST, PLACES, is_safe, private_folder

CLUSTERS = Path(__file__).parents[2] / "clusters"


def mode(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


# -- folders ------------------------------------------------------------------------------------


def test_a_private_folder_is_this_accounts_alone_and_goes() -> None:
    with private_folder() as first, private_folder() as second:
        assert first != second
        assert mode(first) == 0o700 and first.stat().st_uid == os.geteuid()
    assert not first.exists() and not second.exists()


def test_code_that_goes_to_workers_lies_in_one() -> None:
    with staged([CLUSTERS]) as folder:
        assert mode(folder) == 0o700 and is_safe(folder.parent)
        assert (folder / "clusters" / "local.py").is_file()


@pytest.mark.parametrize("name", ["x" * MOST, "open"])
def test_a_long_or_an_open_tmpdir_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name).chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with private_folder() as folder:
        assert str(folder.parent) in PLACES


def test_where_nothing_is_safe_the_next_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusters.local.is_safe", lambda _: False)
    with pytest.raises(CannotConnect, match="set TMPDIR to a folder of yours"), private_folder():
        pass


@pytest.mark.parametrize(
    ("bits", "safe"), [(0o700, True), (0o755, True), (0o1777, True), (0o777, False), (0o770, False)]
)
def test_a_folder_is_safe_where_others_cannot_rename(tmp_path: Path, bits: int, safe: bool) -> None:
    place = tmp_path / "above" / "below"
    place.mkdir(parents=True)
    place.parent.chmod(bits)
    assert is_safe(place) is safe
    assert is_safe(place.parent) is safe
    (tmp_path / "link").symlink_to(place)
    assert is_safe(tmp_path / "link") is safe


def test_a_folder_that_is_not_there_is_not_safe(tmp_path: Path) -> None:
    assert not is_safe(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_anothers_folder_is_not_safe(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    assert not is_safe(tmp_path)


# -- the token of clusters ----------------------------------------------------------------------


def test_the_token_that_ray_left_open_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    use_token()  # there is none
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o755)
    token.write_text("secret")
    token.chmod(0o644)
    use_token()
    assert (mode(token), mode(token.parent), token.read_text()) == (0o600, 0o700, "secret")


# -- a real one ---------------------------------------------------------------------------------


def test_it_listens_on_loopback_and_answers_who_shows_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # long: its sockets would not fit
    before = dict(os.environ)
    with connected("local", [CLUSTERS]):
        assert ray.get(ray.remote(lambda: 6 * 7).remote()) == 42
        (node,) = ray.nodes()
        assert node["NodeManagerAddress"] == "127.0.0.1"
        files = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
        assert mode(files) == 0o700 and is_safe(files.parent)
        assert mode(files / "token") == 0o600
        assert next((files / "ray").glob("session_2*/sockets/plasma_store")).is_socket()
        (code,) = (files / "ray").glob("session_2*/runtime_resources/working_dir_files/*/clusters")
        assert (code / "connect.py").is_file()
        answers: list[int | None] = []
        deadline = time.monotonic() + 60
        while answers.count(401) < 2 and time.monotonic() < deadline:  # its agents start last
            ports = listening()
            answers = [answer(port) for _, port in ports]
        assert {address for address, _ in ports if not is_loopback(address)} == set()
    assert answers.count(401) >= 2  # the agents, which could start programs
    assert {a for a in answers if a not in (401, None)} <= {405}  # figures alone: nothing to post
    assert not (tmp_path / ".ray").exists() and not files.exists()
    assert os.environ.get("RAY_AUTH_TOKEN_PATH") == before.get("RAY_AUTH_TOKEN_PATH")


def listening() -> set[tuple[str, int]]:
    """Where this process, and those that it has started, listen."""
    ours = psutil.Process()
    return {
        (found.laddr.ip, found.laddr.port)
        for process in (ours, *ours.children(recursive=True))
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    }


def is_loopback(address: str) -> bool:
    found = ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


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
    except Exception:  # http.client's own, for the greeting of gRPC
        return None
