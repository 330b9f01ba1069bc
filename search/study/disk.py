"""Full disks, and files that killed workers left half written."""

import errno
import shutil
from pathlib import Path

from ..space.locations import PHASES, TRIALS

FULL_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT}
"""Error numbers of a full disk and of a used-up quota."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS


def delete_partial_files(folder: Path) -> None:
    """Delete half-written files in a search's folder; nobody may run the search meanwhile."""
    for part in [*folder.glob(f"{TRIALS}/*/.*"), *folder.glob(f"{PHASES}/.*")]:
        # a worker that outlives its driver may finish the file meanwhile
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
