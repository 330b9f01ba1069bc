"""A search as a Ray job, and the commands that reach it: they run on the cluster, as jobs too."""

import shlex
from collections.abc import Callable
from pathlib import Path

from ray.job_submission import JobDetails

from clusters import jobs
from clusters.definitions import find
from trainer.config import BadInput
from trainer.text.redaction import HIDDEN

from ..reporting.console import program
from ..space.config import SearchConfig
from ..space.config_file import stored, write_yaml
from .driver import PACKAGES
from .resources import AT_ONCE

NAME, STORAGE = "unfreeze.search", "unfreeze.storage"
"""In the metadata of a job: which search it is, and the folder it lies in."""

Say = Callable[[str], None]


def send(config: SearchConfig, say: Say) -> int:
    """Start a search on a cluster, see it through its preflight, and leave it to itself.

    Returns an exit code: not 0 where it ended before its first trial. Raises BadInput where it runs
    already, and CannotConnect.
    """
    if config.cluster == "local":
        raise BadInput(["--detach: needs a cluster to go to; give --cluster"])
    definition = find(config.cluster)
    client = jobs.client()
    for job in jobs.sent(client, NAME):
        if _is(job, config.name) and job.status in jobs.RUNNING:
            raise BadInput([f"{config.name} runs already, as job {job.submission_id}"])
    raw = stored(config)
    if HIDDEN in raw["tracking"]:  # the cluster's own MLFLOW_TRACKING_URI has the password
        del raw["tracking"]
    files = {"search.yaml": write_yaml(raw)}
    if definition is not None:
        files["cluster.yaml"] = definition.read_text(encoding="utf-8")
    where = "cluster.yaml" if definition is not None else "auto"
    id = jobs.send(
        client,
        PACKAGES,
        files,
        _line("search", "search.yaml", "--cluster", where),
        {NAME: config.name, STORAGE: str(config.storage)},
    )
    ended = jobs.follow(client, id, say, until=AT_ONCE)
    if ended is not None:
        return ended
    say(f"{config.name} goes on as job {id}, without this terminal. Next:")
    for words in ("status --watch", "stop"):
        command, *options = words.split()
        say(
            "  "
            + " ".join([program(), command, config.name, *options, "--cluster", config.cluster])
        )
    return 0


def ask(name: str | None, words: list[str], storage: Path, say: Say) -> int:
    """Run a command about a search, or about all, on the cluster; returns its exit code."""
    client = jobs.client()
    known = [job for job in jobs.sent(client, NAME) if name is None or _is(job, name)]
    if name is not None and known:
        say(f"job {known[0].submission_id}: {known[0].status.value}")
    folders = list(dict.fromkeys(str((job.metadata or {})[STORAGE]) for job in known))
    folders = folders or [str(storage.resolve())]
    codes = []
    for folder in folders[: 1 if name else None]:
        line = _line(*words, "--storage", folder)
        codes.append(jobs.follow(client, jobs.send(client, PACKAGES, {}, line, {}), say) or 0)
    return max(codes)


def watch(name: str, say: Say) -> int:
    """Follow the log of a search that was sent away, to its end; returns its exit code."""
    client = jobs.client()
    known = [job for job in jobs.sent(client, NAME) if _is(job, name)]
    if not known:
        raise BadInput([f"{name}: no job of this search is known to the cluster"])
    return jobs.follow(client, str(known[0].submission_id), say) or 0


def _is(job: JobDetails, name: str) -> bool:
    return (job.metadata or {}).get(NAME) == name


def _line(*words: str) -> str:
    return shlex.join(["python", "-m", "search.commands.cli", *words])
