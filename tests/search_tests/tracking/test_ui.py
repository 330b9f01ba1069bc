"""`unfreeze ui`: what it refuses before it serves anything, and what it prints."""

import socket
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from search.tracking import ui
from search.tracking.ui import page_lines, serve, server_command, server_environment
from trainer.config import InputError


def test_without_a_store_there_is_nothing_to_show() -> None:
    with pytest.raises(InputError, match=r"no MLflow store .*/mlflow\.db; run it where"):
        serve(None, 5000)


def test_a_server_that_does_not_answer_is_bad_input_without_its_password() -> None:
    with pytest.raises(
        InputError, match=r"http://me:\*\*\*@127\.0\.0\.1:1 does not answer"
    ) as raised:
        serve("http://me:canary@127.0.0.1:1", 5000)
    assert "canary" not in str(raised.value)


def test_the_pages_of_a_store_with_a_server_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui, "_searches", lambda uri: [("cells", "7")])
    assert serve("http://me:canary@here:5000/", 5000) == 0
    server, page = capsys.readouterr().out.splitlines()
    assert server == "this store already has a server: http://me:***@here:5000"
    assert page.startswith("  cells: http://me:***@here:5000/#/experiments/7/runs?")


def test_without_tracking_there_is_nothing_to_show() -> None:
    with pytest.raises(InputError, match="tracking: off, so there is no store to show"):
        serve("off", 5000)


@pytest.mark.parametrize("port", [0, 99999])
def test_an_invalid_port_is_bad_input(store: str, port: int) -> None:
    with pytest.raises(InputError, match=rf"--port {port} \(legal: 1 to 65535\)"):
        serve(store, port)


def test_an_unknown_kind_of_store_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"tracking: foo \(legal: off, or one of"):
        serve("foo", 5000)


def test_a_port_that_is_taken_is_bad_input(store: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: Address already in use; choose"):
            serve(store, port)


def test_the_pages_of_searches_are_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    page = MlflowClient(uri).create_experiment("cells")
    address, cells = page_lines(uri, 5001)
    assert address == "http://127.0.0.1:5001 (Ctrl+C ends it)"
    assert cells.startswith(f"  cells: http://127.0.0.1:5001/#/experiments/{page}/runs")
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    assert " -L 5001:127.0.0.1:5001 " in page_lines(uri, 5001)[-1]
    assert page_lines(uri, 5001)[-1].endswith("@10.0.0.2")


def test_it_serves_this_machine_alone_and_shows_no_password() -> None:
    line = server_command(5001)
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert line[line.index("--allowed-hosts") + 1] == "127.0.0.1:5001,localhost:5001"
    uri = "postgresql://me:canary@host/mlflow"
    assert not any("canary" in word for word in line)
    settings = server_environment(uri)
    assert settings["MLFLOW_BACKEND_STORE_URI"] == uri
    assert settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
