"""The Ray of a local search: its files, its token and its ports are for this account alone."""

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from .definitions import CannotConnect

SOCKET = "/unfreeze-12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path that Ray gives a socket below a folder for temporary files."""
MOST = 107 - len(SOCKET)
"""Bytes that such a folder's own path may have: those of a socket have 107."""
PLACES = ("/tmp", "/var/tmp")
"""Where to look when TMPDIR will not do."""
TOKEN_VARIABLE = "RAY_AUTH_TOKEN_PATH"


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that no other account can enter, nor put another in the place of.

    Raises CannotConnect where no folder for temporary files is safe and short enough.
    """
    places = (Path(place) for place in (tempfile.gettempdir(), *PLACES))
    base = next((p for p in places if len(os.fsencode(p)) <= MOST and is_safe(p)), None)
    if base is None:
        raise CannotConnect(
            f"cluster: no folder for Ray's files that is safe from other accounts; set TMPDIR to a "
            f"folder of yours (its path of at most {MOST} bytes, and no folder of it writable for "
            "others)"
        )
    # what a dying process of Ray's still writes is no error
    with tempfile.TemporaryDirectory("", "unfreeze-", base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def is_safe(folder: Path) -> bool:
    """Whether no other account but root can rename what this account has in a folder."""
    real = Path(os.path.realpath(folder))
    return real.is_dir() and all(map(_is_kept, (real, *real.parents)))


def _is_kept(folder: Path) -> bool:
    status = folder.stat()
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return status.st_uid in {0, os.geteuid()} and not shared


@contextlib.contextmanager
def secluded() -> Iterator[Path]:
    """A folder for the files of a Ray that is started meanwhile. It listens on loopback alone, and
    answers those alone who show its token, which lies in that folder: other accounts reach loopback
    too."""
    with private_folder() as folder, _token(folder / "token"), _on_loopback():
        yield folder / "ray"


@contextlib.contextmanager
def _token(file: Path) -> Iterator[None]:
    """A new token, in a file of mode 0600; Ray itself would leave one in the home, for all to read
    where the umask lets them."""
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    before = os.environ.get(TOKEN_VARIABLE)
    os.environ[TOKEN_VARIABLE] = str(file)
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        del os.environ[TOKEN_VARIABLE]
        if before is not None:
            os.environ[TOKEN_VARIABLE] = before
        AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's switch for macOS and Windows, where a node is 127.0.0.1. It has no setting for it: an
    address of loopback that it is given, it takes for that of the network."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
