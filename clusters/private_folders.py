"""Temporary folders that are safe from other accounts, for Ray's files and for staged code."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .definitions import ClusterConnectionError

LONGEST_SOCKET = (
    "/unfreeze-12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
)
"""The longest path that Ray gives a socket below a folder for temporary files."""
MAX_PATH_BYTES = 107 - len(LONGEST_SOCKET)
"""Bytes that the path of such a folder may have: the path of a socket may have 107."""
FALLBACKS = ("/tmp", "/var/tmp")
"""Folders to try if TMPDIR is not safe or too long."""


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that no other account can enter or replace.

    Raises ClusterConnectionError if no folder for temporary files is safe and short enough.
    """
    places = (Path(place) for place in (tempfile.gettempdir(), *FALLBACKS))
    base = next((p for p in places if len(os.fsencode(p)) <= MAX_PATH_BYTES and is_safe(p)), None)
    if base is None:
        raise ClusterConnectionError(
            "cluster: no folder for Ray's files is safe from other accounts; set TMPDIR to a "
            f"folder of yours with a path of at most {MAX_PATH_BYTES} bytes, no part of which "
            "others may write"
        )
    # a process of Ray's that is just ending may still write into it
    with tempfile.TemporaryDirectory("", "unfreeze-", base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def is_safe(folder: Path) -> bool:
    """Whether no other account but root can rename what this account has in a folder."""
    real = Path(os.path.realpath(folder))
    return real.is_dir() and all(map(_keeps_others_out, (real, *real.parents)))


def _keeps_others_out(folder: Path) -> bool:
    """Whether a folder is this account's or root's, and only its owner can rename what is in it."""
    status = folder.stat()
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return status.st_uid in {0, os.geteuid()} and not shared


@contextlib.contextmanager
def staged(packages: list[Path]) -> Iterator[Path]:
    """A folder with copies of exactly these packages: what a worker imports."""
    with private_folder() as folder:
        for package in packages:
            shutil.copytree(
                package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        yield folder
