"""Findings have the first places, count all of them, and say what to do."""

import pytest

from trainer.config import InputError
from trainer.data.findings import SHOWN, Finding, Findings, Place, check_allowed, shown


def only(findings: Findings) -> Finding:
    (finding,) = findings.items
    return finding


def test_the_first_places_are_kept_and_all_are_counted() -> None:
    findings = Findings()
    findings.add("box-empty", "train", "a.json", (Place(annotation=i) for i in range(24)))
    assert (only(findings).count, len(only(findings).places)) == (24, SHOWN)
    assert only(findings).line.count("annotation") == SHOWN
    assert " and 14 more; " in only(findings).line


def test_only_the_first_indices_become_places() -> None:
    findings, made = Findings(), []

    def place(i: int) -> Place:
        made.append(i)
        return Place(image=i)

    findings.add_at("box-empty", "val", "a.json", range(100, 200), place)
    assert made == [*range(100, 100 + SHOWN)]
    assert only(findings).count == 100


def test_no_places_are_no_finding() -> None:
    findings = Findings()
    findings.add("box-empty", "train", "a.json", [])
    findings.add_at("box-empty", "train", "a.json", [], lambda i: Place())
    assert findings.items == []


def test_an_allowed_error_is_a_warning() -> None:
    findings = Findings(check_allowed(["box-empty"]))
    findings.add("box-empty", "train", "a.json", [Place()])
    findings.add("box-negative", "train", "a.json", [Place()])
    assert [f.severity for f in findings.items] == ["warning", "error"]
    assert [f.code for f in findings.errors] == ["box-negative"]


def test_a_line_has_code_text_place_hint_and_next_step() -> None:
    findings = Findings()
    place = Place("a\x1b.png", image=3, annotation=7, detail="1 2 0 4")
    findings.add_at("box-empty", "train", "a.json", [0], lambda _: place, "all are in one picture")
    assert only(findings).line == (
        r"data.train: box-empty: boxes of zero width or height: annotation 7 of image 3 "
        r"(a\x1b.png): 1 2 0 4; all are in one picture; redraw or delete them, or --allow box-empty"
    )


def test_a_code_that_cannot_be_allowed_is_bad_input() -> None:
    with pytest.raises(InputError) as raised:
        check_allowed(["box-emty", "image-id-twice", "box-empty"])
    unknown, fixed = raised.value.errors
    assert "box-emty: no such code" in unknown and "did you mean box-empty?" in unknown
    assert "image-id-twice: cannot be allowed; give each image another id" in fixed


def test_a_long_value_is_shortened() -> None:
    assert len(shown("x" * 5000)) < 100
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    assert len(shown(deep)) < 100
