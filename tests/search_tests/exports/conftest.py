"""A model for the tests of what is done with one."""

import shutil
from pathlib import Path

import pytest

from ..conftest import Trained


@pytest.fixture
def model(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the winner, which a test may change."""
    shutil.copytree(trained.winner, tmp_path / "model")
    return tmp_path / "model"
