"""That faults can be planted: the tests that plant them take too long for every day."""

from pathlib import Path

import pytest

from .faulty import CHECKPOINT, CHECKPOINT_ENDS, EPOCH_STARTS, FIT, ROOT


@pytest.mark.parametrize(("file", "place"), [(FIT, EPOCH_STARTS), (CHECKPOINT, CHECKPOINT_ENDS)])
def test_the_code_has_the_place_once(file: Path, place: str) -> None:
    assert (ROOT / file).read_text().count(place) == 1
