"""Rows of label files: what is a box, a polygon, and what is of another task."""

import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from trainer.data.formats.yolo_labels import is_of_another_task, read_rows

Make = Callable[[Random], list[float]]


def box(r: Random) -> tuple[float, float, float, float]:
    w, h = r.uniform(0.05, 0.3), r.uniform(0.05, 0.3)
    return r.uniform(w / 2, 1 - w / 2), r.uniform(h / 2, 1 - h / 2), w, h


def keypoints(count: int, visible: Callable[[Random], list[float]] = lambda r: []) -> Make:
    def make(r: Random) -> list[float]:
        x, y, w, h = box(r)
        row = [x, y, w, h]
        for _ in range(count):
            row += [x + w * r.uniform(-0.5, 0.5), y + h * r.uniform(-0.5, 0.5), *visible(r)]
        return row

    return make


def hidden_keypoints(r: Random) -> list[float]:
    row = keypoints(5, lambda r: [2])(r)
    return [*row[:4], 0, 0, 0, *row[7:]]


def tracked(*more: Callable[[Random], float]) -> Make:
    return lambda r: [*box(r), *(each(r) for each in more)]


def confidence(r: Random) -> float:
    return r.uniform(0.2, 1)


def outlined(r: Random) -> list[float]:
    """A predicted outline with its confidence and track."""
    return [*outline(20)(r), confidence(r), r.randint(1, 40)]


def outline(count: int, thin: float = 1.0) -> Make:
    def make(r: Random) -> list[float]:
        x, y, w, h = box(r)
        start, turn = r.uniform(0, 2 * math.pi), r.choice([-1, 1])
        angles = [start + turn * 2 * math.pi * i / count for i in range(count)]
        return [
            v for a in angles for v in (x + w / 2 * math.cos(a), y + thin * h / 2 * math.sin(a))
        ]

    return make


def rectangle(turned: bool, thin: float = 1.0) -> Make:
    """Four corners from any of them, either way round, as oriented boxes are written."""

    def make(r: Random) -> list[float]:
        x, y, w, h = box(r)
        a = r.uniform(0, math.pi) if turned else 0.0
        corners = [
            (
                x + sx * w * math.cos(a) - sy * thin * h * math.sin(a),
                y + sx * w * math.sin(a) + sy * thin * h * math.cos(a),
            )
            for sx, sy in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        ]
        first = r.randrange(4)
        corners = (corners[first:] + corners[:first])[:: r.choice([-1, 1])]
        return [v for corner in corners for v in corner]

    return make


def triangle(r: Random) -> list[float]:
    x, y, w, h = box(r)
    return [v for _ in range(3) for v in (x + w * (r.random() - 0.5), y + h * (r.random() - 0.5))]


def share(make: Make) -> float:
    """Of rows, written to six digits, that are taken for those of another task."""
    r = Random(0)
    rows = [[round(v, 6) for v in map(float, make(r))] for _ in range(400)]
    return sum(map(is_of_another_task, rows)) / len(rows)


@pytest.mark.parametrize(
    "make",
    [
        tracked(confidence),
        tracked(lambda r: r.randint(1, 9)),
        tracked(confidence, lambda r: 1),
        tracked(confidence, lambda r: r.randint(1, 300)),
        tracked(confidence, lambda r: r.randint(1, 9), lambda r: -1),
        keypoints(1),
        keypoints(2),
        keypoints(5),
        keypoints(17),
        keypoints(1, lambda r: [r.randint(0, 2)]),
        keypoints(2, lambda r: [r.randint(0, 2)]),
        keypoints(4, lambda r: [confidence(r)]),
        keypoints(17, lambda r: [2]),
        hidden_keypoints,
        outlined,
    ],
)
def test_rows_of_other_tasks_are_known(make: Make) -> None:
    assert share(make) > 0.85


@pytest.mark.parametrize(
    "make",
    [
        triangle,
        outline(4),
        outline(5),
        outline(12),
        outline(100),
        outline(40, thin=0.1),
        rectangle(turned=False),
        rectangle(turned=True),
        rectangle(turned=True, thin=0.1),
    ],
)
def test_polygons_are_polygons(make: Make) -> None:
    assert share(make) < 0.15


@pytest.mark.parametrize(
    "numbers",
    [
        [0.5, 0.5, 0.2, 0.2, math.nan],
        [0.5, 0.5, math.inf, 0.2, 0.9, 1],
        [0.5, 0.6] * 20,  # a polygon of no extent
        [20, 10, 8, 4, 0.9],  # pixels, which are reported as such
    ],
)
def test_other_mistakes_are_no_rows_of_another_task(numbers: list[float]) -> None:
    assert not is_of_another_task(numbers)


def test_rows_have_their_lines_and_no_foreign_words(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\nroot:x:0:0 secret\n1 0.5 0.5 0.2 0.4\n1.5 1\n")
    rows = list(read_rows(file))
    assert [(row.line, row.label) for row in rows] == [(2, 0), (3, 1), (4, None)]
    assert [row.box for row in rows] == [["no numbers"], pytest.approx([0.4, 0.3, 0.2, 0.4]), [1.0]]


@pytest.mark.parametrize("word", ["9" * 5000, "-1e400", "nan", "1e30", "0.5"])
def test_a_class_that_is_no_integer_is_none(tmp_path: Path, word: str) -> None:
    (tmp_path / "a.txt").write_text(f"{word} 0.5 0.5 0.2 0.2\n")
    (row,) = read_rows(tmp_path / "a.txt")
    assert row.label is None


def test_what_is_no_text_is_a_row_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe0\0")
    (tmp_path / "b.txt").mkdir()
    for name in ("a.txt", "b.txt"):
        assert [row.box for row in read_rows(tmp_path / name)] == [["no numbers"]]
