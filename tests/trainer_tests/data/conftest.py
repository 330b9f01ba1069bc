"""Small data sets on disk."""

from pathlib import Path

import pytest

from trainer.config import Data

from .small_sets import roboflow_export, small_set
from .spoilt_sets import make_sound_set


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """A sound data set of two pictures to train on and one to evaluate on."""
    return small_set(tmp_path)


@pytest.fixture
def roboflow(tmp_path: Path) -> Path:
    return roboflow_export(tmp_path / "export")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A sound COCO data set; image 3 is `train-3.png`, annotations 6 and 7 are on it."""
    return make_sound_set(tmp_path)
