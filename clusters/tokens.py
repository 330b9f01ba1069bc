"""The token that this account shows to the clusters it joins."""

import contextlib
import stat
from pathlib import Path

from .ray_internals import offer_token

TOKEN_FILE = Path("~/.ray/auth_token")
"""Where Ray keeps it."""
TOKEN_REFUSED = (
    "it refuses our token, or we have none; put the cluster's token into ~/.ray/auth_token, or set "
    "RAY_AUTH_TOKEN_PATH to its file"
)


def use_token() -> None:
    """Show clusters the token of this account, if it has one, and let no other account read it."""
    _protect_token()
    offer_token()


def _protect_token() -> None:
    """Close the token's file to other accounts: `ray get-auth-token` leaves that to the umask."""
    for place in (TOKEN_FILE.expanduser(), TOKEN_FILE.expanduser().parent):
        with contextlib.suppress(OSError):  # it does not exist, or is another account's
            if not place.is_symlink() and place.stat().st_mode & 0o077:
                place.chmod(stat.S_IMODE(place.stat().st_mode) & 0o700)
