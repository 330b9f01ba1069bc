"""What a search keeps on disk: checkpoints that are needed, and those worth keeping."""

import errno
import shutil
from pathlib import Path

from trainer.checkpoint import BEST, LAST, PREVIOUS
from trainer.config import BadInput
from trainer.review import REVIEW

from .config import SearchConfig, trial_folder
from .lock import Busy, locked
from .results import may_win, order
from .study import Study

FULL = {errno.ENOSPC, errno.EDQUOT}
"""What a system calls a disk or a quota that is full."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def tidy(config: SearchConfig, study: Study) -> None:
    """Delete what no one needs any more: ended trials' last checkpoints, and of their best ones
    the worst, as long as all together are over the cap; none that may become the winner's.

    Reviews are small, and MLflow may not have them yet: they stay.
    """
    needed = may_win(config, study.records.values())
    ended = [r for r in order(config, study.records.values()) if r.end is not None]
    total = 0
    for record in ended:
        folder = trial_folder(config.folder, record.number)
        for name in (LAST, PREVIOUS):
            (folder / name).unlink(missing_ok=True)
        best = folder / BEST
        total += best.stat().st_size if best.is_file() else 0
        if record.number not in needed and total > config.search.disk_cap:
            best.unlink(missing_ok=True)


def _kept(trial: Path) -> list[Path]:
    """What an ended trial keeps: its best checkpoint, and its review."""
    return [f for f in (trial / BEST, *(trial / REVIEW).glob("*")) if f.is_file()]


def clean(config: SearchConfig, study: Study) -> int:
    """Delete the shared phases and the trials' checkpoints and reviews; the record, the winner, and
    those of trials that may yet become another winner stay.

    Returns the bytes that became free. Raises BadInput while the search runs.
    """
    needed = {
        file
        for number in may_win(config, study.records.values())
        for file in _kept(trial_folder(config.folder, number))
    }
    freed = 0
    try:
        with locked(config.folder):
            for name in ("trials", "phases"):
                for file in (config.folder / name).rglob("*"):
                    if file.is_file() and file not in needed:
                        freed += file.stat().st_size
                        file.unlink()
    except Busy as error:
        raise BadInput([str(error)]) from error
    return freed


def sweep(folder: Path) -> None:
    """Delete what killed workers left half written in a search's folder that nobody runs."""
    for part in [*folder.glob("trials/*/.*"), *folder.glob("phases/.*")]:
        shutil.rmtree(part) if part.is_dir() else part.unlink()
