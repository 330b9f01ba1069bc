"""The token that this account shows to clusters."""

import stat
from pathlib import Path

import pytest

from clusters.tokens import use_token


def mode(place: Path) -> int:
    return stat.S_IMODE(place.stat().st_mode)


def test_a_token_that_ray_left_open_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    use_token()  # without any token
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o755)
    token.write_text("secret")
    token.chmod(0o644)
    use_token()
    assert (mode(token), mode(token.parent), token.read_text()) == (0o600, 0o700, "secret")
