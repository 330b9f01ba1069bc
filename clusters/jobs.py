"""Ray's Jobs API: commands that run on a cluster without this terminal."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from .connect import REFUSED, staged, use_token
from .definitions import CannotConnect, jobs_address

TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Ray's own, each with a level of its own."""
RUNNING = (JobStatus.PENDING, JobStatus.RUNNING)


def client() -> JobSubmissionClient:
    """Of the cluster whose Jobs API is reached from here. Raises CannotConnect."""
    use_token()
    for talkative in TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.ERROR)
    address = jobs_address()
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise CannotConnect(f"{address}: {REFUSED}") from error
    except (ConnectionError, RuntimeError) as error:
        raise CannotConnect(
            f"{address}: no Jobs API answers; open the tunnel that clusters/README.md shows"
        ) from error


def send(
    jobs: JobSubmissionClient,
    packages: list[Path],
    files: dict[str, str],
    words: str,
    metadata: dict[str, str],
) -> str:
    """Start a shell command in a folder with these packages and text files; returns the job's id.

    It runs on the head, or wherever jobs run there, and takes no share of a node.
    """
    with staged(packages) as folder:
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
        return str(
            jobs.submit_job(
                entrypoint=words, runtime_env={"working_dir": str(folder)}, metadata=metadata
            )
        )


def sent(jobs: JobSubmissionClient, key: str) -> list[JobDetails]:
    """Jobs with this key in their metadata, the newest first."""
    found = [job for job in jobs.list_jobs() if job.metadata and key in job.metadata]
    return sorted(found, key=lambda job: job.start_time or 0, reverse=True)


def follow(
    jobs: JobSubmissionClient, id: str, say: Callable[[str], None], until: str | None = None
) -> int | None:
    """Say what a job says, to its end, or to a line with `until` in it.

    Returns None in the latter case, else 0 where the job succeeded, else 1.
    """
    if asyncio.run(_tail(jobs, id, say, until)):
        return None
    while jobs.get_job_status(id) in RUNNING:
        asyncio.run(asyncio.sleep(0.5))
    return 0 if jobs.get_job_status(id) is JobStatus.SUCCEEDED else 1


async def _tail(
    jobs: JobSubmissionClient, id: str, say: Callable[[str], None], until: str | None
) -> bool:
    rest = ""
    async for part in jobs.tail_job_logs(id):
        *lines, rest = (rest + part).split("\n")
        for line in lines:
            say(line)
            if until is not None and until in line:
                return True
    if rest:
        say(rest)
    return False
