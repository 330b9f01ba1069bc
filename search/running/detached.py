"""A search as a Ray job on a cluster, and the commands about it: they run there as jobs too."""

import shlex
from collections.abc import Callable
from pathlib import Path

from ray.job_submission import JobDetails

from clusters import jobs
from clusters.definitions import find_definition
from trainer.config import InputError
from trainer.text.redaction import HIDDEN

from ..reporting.console import program_name
from ..space.config import SearchConfig
from ..space.config_file import stored_config, write_yaml
from .driver import PACKAGE_FOLDERS
from .trials_at_once import SLOTS_MARK

NAME, STORAGE = "unfreeze.search", "unfreeze.storage"
"""In the metadata of a job: the name of its search, and the folder that holds it."""

Say = Callable[[str], None]


def send(config: SearchConfig, say: Say) -> int:
    """Start a search on a cluster, and follow it until its checks have passed.

    Returns an exit code: not 0 if it ended before its first trial. Raises InputError if it is
    running there, and ClusterConnectionError.
    """
    if config.cluster == "local":
        raise InputError(["--detach: needs a cluster to send the search to; give --cluster"])
    definition = find_definition(config.cluster)
    client = jobs.client()
    for job in jobs.sent(client, NAME):
        if _runs(job, config.name) and job.status in jobs.RUNNING:
            raise InputError([f"{config.name} is running there, as job {job.submission_id}"])
    files = {"search.yaml": _yaml(config)}
    if definition is not None:
        files["cluster.yaml"] = definition.read_text(encoding="utf-8")
    cluster = "cluster.yaml" if definition is not None else "auto"
    id = jobs.send(
        client,
        PACKAGE_FOLDERS,
        files,
        _command("search", "search.yaml", "--cluster", cluster),
        {NAME: config.name, STORAGE: str(config.storage)},
    )
    code = jobs.follow(client, id, say, until=SLOTS_MARK)
    if code is not None:
        return code
    say(f"{config.name} continues as job {id}, without this terminal. Next:")
    for command, *options in (["status", "--watch"], ["stop"]):
        words = [program_name(), command, config.name, *options, "--cluster", config.cluster]
        say(f"  {' '.join(words)}")
    return 0


def _yaml(config: SearchConfig) -> str:
    """The search.yaml to send: without a password, which the cluster's environment has itself."""
    raw = stored_config(config)
    if HIDDEN in raw["tracking"]:
        del raw["tracking"]
    return write_yaml(raw)


def ask(name: str | None, words: list[str], storage: Path, say: Say) -> int:
    """Run a command on the cluster, about one search or, with None, about all.

    The command reads the folders of the searches that were sent, or `storage` if there are none.
    Returns its exit code.
    """
    client = jobs.client()
    sent = [job for job in jobs.sent(client, NAME) if name is None or _runs(job, name)]
    if name is not None and sent:
        say(f"job {sent[0].submission_id}: {sent[0].status.value}")
    folders = list(dict.fromkeys(str((job.metadata or {})[STORAGE]) for job in sent))
    folders = folders or [str(storage.resolve())]
    codes = []
    for folder in folders[: 1 if name else None]:
        command = _command(*words, "--storage", folder)
        codes.append(
            jobs.follow(client, jobs.send(client, PACKAGE_FOLDERS, {}, command, {}), say) or 0
        )
    return max(codes)


def watch(name: str, say: Say) -> int:
    """Follow the log of a search that was sent to the cluster, to its end; returns an exit code."""
    client = jobs.client()
    sent = [job for job in jobs.sent(client, NAME) if _runs(job, name)]
    if not sent:
        raise InputError([f"{name}: the cluster knows no job of this search"])
    return jobs.follow(client, str(sent[0].submission_id), say) or 0


def _runs(job: JobDetails, name: str) -> bool:
    """Whether a job is that of this search."""
    return (job.metadata or {}).get(NAME) == name


def _command(*words: str) -> str:
    return shlex.join(["python", "-m", "search.commands.cli", *words])
