"""The Ray of a local search: its files, its token and its ports are for this account alone."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .private_folders import private_folder
from .ray_internals import forget_token, local_ray_on_loopback

TOKEN_VARIABLE = "RAY_AUTH_TOKEN_PATH"


@contextlib.contextmanager
def private_ray() -> Iterator[Path]:
    """Make a Ray that is started meanwhile private; yields the folder for its files.

    It listens on loopback alone. Other accounts reach loopback too, so it answers only those who
    show its token, which lies in a folder of this account alone.
    """
    with private_folder() as folder, _token(folder / "token"), local_ray_on_loopback():
        yield folder / "ray"


@contextlib.contextmanager
def _token(file: Path) -> Iterator[None]:
    """Write a new token into a file of mode 0600, and have Ray use it.

    Ray itself would leave one in the home folder, which others can read if the umask lets them.
    """
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    before = os.environ.get(TOKEN_VARIABLE)
    os.environ[TOKEN_VARIABLE] = str(file)
    forget_token()
    try:
        yield
    finally:
        del os.environ[TOKEN_VARIABLE]
        if before is not None:
            os.environ[TOKEN_VARIABLE] = before
        forget_token()
