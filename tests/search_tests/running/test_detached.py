"""A search as a Ray job: what is refused before anything is sent; what is sent, and asked."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus

from clusters import jobs
from search.running import detached
from search.space.config_file import read_yaml
from trainer.config import InputError

Make = Callable[..., Any]


@dataclass
class Job:
    submission_id: str
    metadata: dict[str, str]
    status: JobStatus = JobStatus.RUNNING
    start_time: int = 1


@dataclass
class Cluster:
    """What would be sent to one, kept here; every job says `2 trials at once, ...` and succeeds."""

    jobs: list[Job] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def send(self, _: Any, packages: Any, files: Any, words: str, metadata: Any) -> str:
        self.files.update(files)
        self.lines.append(words)
        self.jobs.append(Job(f"job{len(self.jobs)}", metadata))
        return self.jobs[-1].submission_id

    def follow(self, _: Any, id: str, say: Any, until: str | None = None) -> int | None:
        say(f"log of {id}")
        return None if until else 0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(jobs, "client", lambda: None)
    monkeypatch.setattr(jobs, "sent", lambda _, key: [j for j in made.jobs if key in j.metadata])
    monkeypatch.setattr(jobs, "send", made.send)
    monkeypatch.setattr(jobs, "follow", made.follow)
    return made


def test_it_needs_a_cluster(make_search: Make, cluster: Cluster) -> None:
    with pytest.raises(InputError, match="give --cluster"):
        detached.send(make_search(), print)
    assert not cluster.jobs


def test_the_resolved_file_goes_along_and_the_definition_too(
    make_search: Make, cluster: Cluster, tmp_path: Path
) -> None:
    said: list[str] = []
    assert detached.send(make_search({"cluster": "aws"}), said.append) == 0
    assert shlex.split(cluster.lines[0])[1:] == [
        *("-m", "search.commands.cli", "search", "search.yaml", "--cluster", "cluster.yaml")
    ]
    assert "available_node_types" in cluster.files["cluster.yaml"]
    (tmp_path / "sent.yaml").write_text(cluster.files["search.yaml"])
    sent = read_yaml(tmp_path / "sent.yaml")
    assert Path(sent["storage"]).is_absolute() and Path(sent["data"]["train"]).is_absolute()
    assert said[0] == "log of job0"
    assert "  unfreeze status tiny --watch --cluster aws" in said


def test_a_password_stays_here(
    make_search: Make, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow:5000")
    detached.send(make_search({"cluster": "10.0.0.1:6379"}), print)
    assert "secret" not in str(cluster.files) and "mlflow:5000" not in cluster.files["search.yaml"]
    assert cluster.lines[0].endswith("--cluster auto")


def test_one_that_runs_is_not_sent_again(make_search: Make, cluster: Cluster) -> None:
    detached.send(make_search({"cluster": "auto"}), print)
    with pytest.raises(InputError, match="tiny is running there, as job job0"):
        detached.send(make_search({"cluster": "auto"}), print)
    cluster.jobs[0].status = JobStatus.SUCCEEDED
    assert detached.send(make_search({"cluster": "auto"}), print) == 0


def test_a_command_is_asked_there_in_the_storage_of_the_search(
    make_search: Make, cluster: Cluster
) -> None:
    config = make_search({"cluster": "auto"})
    detached.send(config, print)
    said: list[str] = []
    assert detached.ask("tiny", ["status", "tiny"], Path("searches"), said.append) == 0
    assert said[0] == "job job0: RUNNING"
    assert shlex.split(cluster.lines[-1])[-2:] == ["--storage", str(config.storage)]
    assert detached.ask("other", ["stop", "other"], Path("/shared"), said.append) == 0
    assert shlex.split(cluster.lines[-1])[-2:] == ["--storage", "/shared"]


def test_only_what_was_sent_can_be_watched(make_search: Make, cluster: Cluster) -> None:
    with pytest.raises(InputError, match="no job of this search"):
        detached.watch("tiny", print)
    detached.send(make_search({"cluster": "auto"}), print)
    said: list[str] = []
    assert detached.watch("tiny", said.append) == 0 and said == ["log of job0"]
