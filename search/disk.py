"""What a search keeps on disk: checkpoints that are needed, and those worth keeping."""

import contextlib
import errno
import shutil

from trainer.checkpoint import BEST, LAST, PREVIOUS
from trainer.config import BadInput

from .config import SearchConfig, trial_folder
from .lock import Busy, locked
from .results import order
from .study import Study

FULL = {errno.ENOSPC, errno.EDQUOT}
"""What a system calls a disk or a quota that is full."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def tidy(config: SearchConfig, study: Study) -> None:
    """Delete what no one needs any more: ended trials' last checkpoints, and of their best ones the
    worst, as long as all together are over the cap."""
    ended = [r for r in order(config, study.records.values()) if r.end is not None]
    total = 0
    for place, record in enumerate(ended):
        folder = trial_folder(config.folder, record.number)
        for name in (LAST, PREVIOUS):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            total += (folder / BEST).stat().st_size
            if place and total > config.search.disk_cap:
                (folder / BEST).unlink()


def clean(config: SearchConfig) -> int:
    """Delete the trials' checkpoints and the shared phases; the record and the winner stay.

    Returns the bytes that became free. Raises BadInput while the search runs.
    """
    freed = 0
    try:
        with locked(config.folder):
            for name in ("trials", "phases"):
                folder = config.folder / name
                freed += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
                shutil.rmtree(folder, ignore_errors=True)
    except Busy as error:
        raise BadInput([str(error)]) from error
    return freed
