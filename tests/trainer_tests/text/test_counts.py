"""Counts and their nouns."""

import pytest

from trainer.text.counts import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 trials"),
        (1, "1 trial"),
        (2, "2 trials"),
        (1234567, "1234567 trials"),
        (0.5, "0.5 trial"),
        (1.0, "1 trial"),
        (2.0, "2 trials"),
    ],
)
def test_the_noun_agrees_with_its_number(number: float, text: str) -> None:
    assert counted(number, "trial") == text


def test_a_plural_and_a_word_for_none_can_be_given() -> None:
    assert counted(1, "class", "classes") == "1 class"
    assert counted(3, "class", "classes") == "3 classes"
    assert counted(0, "error", zero="no") == "no errors"
