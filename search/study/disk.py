"""What a search keeps on disk: checkpoints that are needed, and those worth keeping."""

import errno
import shutil
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT}
"""What a system calls a disk or a quota that is full."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def sweep(folder: Path) -> None:
    """Delete what killed workers left half written in a search's folder that nobody runs."""
    for part in [*folder.glob("trials/*/.*"), *folder.glob("phases/.*")]:
        # a worker that outlived its driver may finish it meanwhile
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
