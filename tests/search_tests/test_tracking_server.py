"""MLflow behind a server: on PostgreSQL, with served artifacts, with credentials."""

import base64
import http.server
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow.tracking import MlflowClient

from search.space.space import read_space
from search.study.record import End
from search.study.search_state import SearchState
from search.study.storage import open_study
from search.study.study import Study
from search.tracking import tracking
from search.tracking.description import Description, flat_metrics
from search.tracking.tracking import MlflowTracking
from trainer.evaluation.review import PREDICTIONS, REVIEW

from .conftest import SPACE, free_port, serving

Make = Callable[..., Any]
FOLDER = Path("kept")


def described() -> Description:
    return Description(
        status="FINISHED", params={"a": "b"}, tags={}, metrics={}, texts={"table.md": "| a |"}
    )


@pytest.fixture(scope="module")
def server(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a tracking server with a database and a folder of artifacts."""
    # not the database of the studies: both have a table of the same name
    engine = sqlalchemy.create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE mlflow"))
    engine.dispose()
    place, port = tmp_path_factory.mktemp("server"), free_port()
    address = f"http://127.0.0.1:{port}"
    line = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", postgresql.replace("/postgres", "/mlflow")]
    line += ["--artifacts-destination", str(place)]
    with serving(line, f"{address}/health"):
        yield address


@pytest.fixture
def study(make_search: Make, make_reports: Make) -> Study:
    """A finished trial with a picture, and one that was stopped."""
    study = open_study(FOLDER, "tiny", trials=9)
    study.id = "id of this search"
    study.state = SearchState.DONE
    for number, end in enumerate((End.FINISHED, End.PRUNED)):
        study.ask(read_space(SPACE), make_search())
        for report in make_reports([0.1, 0.2]):
            study.record(number, report)
        study.end(number, end)
    place = FOLDER / "trials" / "0" / REVIEW
    place.mkdir(parents=True)
    (place / PREDICTIONS).write_bytes(b"picture")
    return study


def test_a_server_on_postgresql_has_rows_and_pictures_once(server: str, study: Study) -> None:
    for _ in range(2):
        assert MlflowTracking(server, study, "served", FOLDER, described).close(60)
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("served")
    assert experiment is not None
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    runs = client.search_runs([experiment.experiment_id])
    trials = {r.data.tags["unfreeze.trial"]: r for r in runs if "unfreeze.trial" in r.data.tags}
    assert len(runs) == 3 and trials.keys() == {"0", "1"}
    assert [trials[n].info.status for n in ("0", "1")] == ["FINISHED", "KILLED"]
    for number, run in trials.items():
        for report in study.records[int(number)].reports.values():
            for key, value in flat_metrics(report).items():
                history = client.get_metric_history(run.info.run_id, key)
                assert [m.value for m in history if m.step == report.epoch] == [value]
    picture = client.download_artifacts(trials["0"].info.run_id, PREDICTIONS)
    assert Path(picture).read_bytes() == b"picture"


def test_credentials_come_from_the_environment_and_go_nowhere_else(
    study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[str | None] = []

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.append(self.headers["Authorization"])
            body = json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"}).encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  (the name that http.server calls)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.05)
    door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    with caplog.at_level(logging.DEBUG):
        address = f"http://127.0.0.1:{door.server_port}"
        assert MlflowTracking(address, study, "closed", FOLDER, described).close(3) is False
    door.shutdown()
    assert set(given) == {"Basic " + base64.b64encode(b"me:canary").decode()}
    assert "MLflow did not take our rows" in caplog.text
    assert "canary" not in caplog.text
    assert not any(b"canary" in file.read_bytes() for file in FOLDER.rglob("*") if file.is_file())
