"""Ray's Jobs API: which jobs are ours, and following one's log."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.job_submission import JobStatus

from clusters import jobs
from clusters.definitions import ClusterConnectionError


@dataclass
class Details:
    """All that is asked of a job that Ray lists."""

    submission_id: str
    start_time: int | None
    metadata: dict[str, str] | None


@dataclass
class Client:
    """All that is asked of Ray's client."""

    parts: list[str] = field(default_factory=list)
    statuses: list[JobStatus] = field(default_factory=lambda: [JobStatus.SUCCEEDED])
    jobs: list[Details] = field(default_factory=list)

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        for part in self.parts:
            yield part

    def get_job_status(self, id: str) -> JobStatus:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def list_jobs(self) -> list[Details]:
        return self.jobs


def followed(client: Any, until: str | None = None) -> tuple[int | None, list[str]]:
    said: list[str] = []
    return jobs.follow(client, "1", said.append, until), said


def test_a_log_is_said_line_by_line_whatever_parts_it_comes_in() -> None:
    assert followed(Client(["on", "e\ntw", "o\n", "three"])) == (0, ["one", "two", "three"])


def test_it_is_left_at_the_line_that_was_waited_for() -> None:
    client = Client(["one\n2 trials at once, 1 CPU each\n", "more\n"])
    assert followed(client, " at once, ") == (None, ["one", "2 trials at once, 1 CPU each"])


@pytest.mark.parametrize("last", [JobStatus.FAILED, JobStatus.STOPPED])
def test_a_job_that_did_not_succeed_is_no_success(last: JobStatus) -> None:
    client = Client(["x\n"], [JobStatus.RUNNING, last, last])
    assert followed(client, "never") == (1, ["x"])


def test_ours_are_those_with_the_key_the_newest_first() -> None:
    listed = [
        Details("old", 1, {"ours": "a"}),
        Details("other", 2, {}),
        Details("none", 3, None),
        Details("new", 4, {"ours": "a"}),
        Details("pending", None, {"ours": "b"}),
    ]
    newest_first = jobs.sent(Client(jobs=listed), "ours")  # type: ignore[arg-type]
    assert [job.submission_id for job in newest_first] == ["new", "old", "pending"]


def test_where_no_jobs_api_answers_the_tunnel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(ClusterConnectionError, match=r"^http://127\.0\.0\.1:9: .*tunnel"):
        jobs.client()
