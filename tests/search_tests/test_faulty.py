"""That faults can be planted: the tests that plant them take too long for every day."""

import pytest

from .faulty import CHECKPOINT_ENDS, EPOCH_STARTS, ROOT


@pytest.mark.parametrize(
    ("file", "place"), [("fit.py", EPOCH_STARTS), ("checkpoint.py", CHECKPOINT_ENDS)]
)
def test_the_code_has_the_place_once(file: str, place: str) -> None:
    assert (ROOT / "trainer" / file).read_text().count(place) == 1
