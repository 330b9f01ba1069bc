"""Ray's Jobs API: commands that run on a cluster, without this terminal."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from .definitions import ClusterConnectionError, jobs_address
from .private_folders import staged
from .tokens import TOKEN_REFUSED, use_token

NOISY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray that set their levels themselves."""
RUNNING = (JobStatus.PENDING, JobStatus.RUNNING)


def client() -> JobSubmissionClient:
    """A client of the Jobs API that this machine reaches. Raises ClusterConnectionError."""
    use_token()
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    address = jobs_address()
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterConnectionError(f"{address}: {TOKEN_REFUSED}") from error
    except (ConnectionError, RuntimeError) as error:
        raise ClusterConnectionError(
            f"{address}: no Jobs API answers; open the tunnel as clusters/README.md shows"
        ) from error


def send(
    jobs: JobSubmissionClient,
    packages: list[Path],
    files: dict[str, str],
    command: str,
    metadata: dict[str, str],
) -> str:
    """Start a job: a shell command in a folder with these packages and files; returns its id.

    It usually runs on the head, and takes no CPUs from the trials.

    Args:
        jobs: The client of the cluster's Jobs API.
        packages: Folders of Python packages.
        files: Text files, content by name.
        command: The shell command.
        metadata: What the cluster remembers of the job.
    """
    with staged(packages) as folder:
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
        return str(
            jobs.submit_job(
                entrypoint=command, runtime_env={"working_dir": str(folder)}, metadata=metadata
            )
        )


def sent(jobs: JobSubmissionClient, key: str) -> list[JobDetails]:
    """The jobs with this key in their metadata, the newest first."""
    jobs_with_key = [job for job in jobs.list_jobs() if job.metadata and key in job.metadata]
    return sorted(jobs_with_key, key=lambda job: job.start_time or 0, reverse=True)


def follow(
    jobs: JobSubmissionClient, id: str, say: Callable[[str], None], until: str | None = None
) -> int | None:
    """Pass on each line of a job's log, to its end, or to a line that contains `until`.

    Returns:
        None if it came to that line; else 0 if the job succeeded, or 1.
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
