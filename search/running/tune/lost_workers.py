"""Why a worker was lost: read from the text of Ray's error, which has no type for it.

`tests/search_tests/running/tune/test_lost_workers.py` fails first when an upgrade of Ray changes
these texts.
"""

import re
from pathlib import Path

from ray.tune.experiment import Trial

NODE_LOST = ("node has died", "node was terminated", "owner has died", "unavailable", "preempted")
"""Parts of Ray's text when a worker was lost together with its node. For one that died alone it is
`its worker process has died`."""
OUT_OF_MEMORY = ("running low on memory", "memory pressure")
"""Parts of Ray's text when it killed a worker because its node was running out of memory."""
LARGEST_WORKER = re.compile(r"^(\d+)\s+[\d.]+\s+ray::ImplicitFunc", re.MULTILINE)
"""The first worker in Ray's list of the processes that use the most memory: its process id."""


def last_error(trial: Trial) -> str:
    """Ray's text about the last failure of a trial; empty if there is none."""
    file = trial.error_file
    text = Path(file).read_text() if file and Path(file).is_file() else ""
    return text.rpartition("Failure # ")[2]


def lost_with_node(error: str) -> bool:
    """Whether a worker was lost together with its node."""
    return any(words in error for words in NODE_LOST)


def killed_for_memory(error: str) -> bool:
    """Whether Ray killed a worker because its node was running out of memory."""
    return any(words in error for words in OUT_OF_MEMORY)


def largest_worker(error: str) -> int | None:
    """The process id of the worker that used the most memory; None if Ray does not say."""
    largest = LARGEST_WORKER.search(error)
    return int(largest[1]) if largest else None
