"""YOLO's label files: a row an object, a class and the numbers of a box or a polygon."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

BOX = 4
"""Numbers of a box: x and y of its centre, width, height, as shares of the picture."""
SLACK = 0.1
"""How far keypoints may lie out of their box, as a share of its sides."""
FAR = 1.0
"""How far a vertex may lie from the box around all others, in its longer side. One of a
parallelogram reaches 1."""


@dataclass(frozen=True)
class Row:
    """One line that is not empty."""

    line: int
    """From 1."""
    label: int | None
    """The class; None where it is no whole number."""
    numbers: list[float] | None
    """What follows; None where it is no numbers, and is then never shown: it could be anyone's."""

    @property
    def box(self) -> Any:
        """x, y, width, height as shares; around a polygon; what is neither as it is."""
        if self.numbers is None:
            return ["no numbers"]
        if is_polygon(self.numbers):
            xs, ys = self.numbers[::2], self.numbers[1::2]
            return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        if len(self.numbers) != BOX:
            return self.numbers
        x, y, width, height = self.numbers
        return [x - width / 2, y - height / 2, width, height]


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a label file; one without numbers stands for a file that is no text."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError):
        lines = ["no text"]
    for number, line in enumerate(lines, start=1):
        if words := line.split():
            yield _row(number, words)


def begins_with_class(file: Path) -> bool:
    """Whether a text file looks like a label file."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return stream.readline(100).partition(" ")[0].isdecimal()
    except OSError:
        return False


def _row(line: int, words: list[str]) -> Row:
    try:
        label, *numbers = (float(word) for word in words)  # of any length, to infinity
    except ValueError:
        return Row(line, 0, None)
    is_class = label.is_integer() and abs(label) < 2**63
    return Row(line, int(label) if is_class else None, numbers)


def is_polygon(numbers: list[float]) -> bool:
    return len(numbers) > BOX and len(numbers) % 2 == 0


def is_of_another_task(numbers: list[float]) -> bool:
    """Whether a row of more numbers than a box is one of tracks, predictions or keypoints.

    Those begin with a box, which says nothing where the second point of a polygon lies: read as
    polygons, they have their second point, width and height, far from all others, or their first,
    the centre, amid all others, where no outline passes. Of few large keypoints not all are seen.
    """
    if not all(map(isfinite, numbers)):
        return False
    if _ends_with_id(numbers):
        return True
    box, more = numbers[:BOX], numbers[BOX:]
    x, y, width, height = box
    if not (_is_within(x, width) and _is_within(y, height)):
        return False
    if not is_polygon(numbers) or (len(more) == 2 and more[1].is_integer()):
        return True  # it ends with a confidence, an id, or both
    return any(_are_keypoints(box, more, step) for step in (2, 3) if len(more) % step == 0)


def _ends_with_id(numbers: list[float]) -> bool:
    """Whether what would be a polygon's last vertex is a confidence and an id."""
    may = is_polygon(numbers) and len(numbers) > BOX + 2 and numbers[-1].is_integer()
    return may and _is_far(numbers[-2:], _pairs(numbers[:-2]))


def _is_within(centre: float, side: float) -> bool:
    """Whether a side of a box lies in its picture."""
    return side > 0 and side / 2 - 0.01 <= centre <= 1.01 - side / 2


def _are_keypoints(box: list[float], more: list[float], step: int) -> bool:
    """Whether these are x and y, or x, y and visibility, of points in a box; 0 0 is of none."""
    x, y, width, height = box
    every = zip(more[::step], more[1::step], strict=True)
    points = [(px, py) for px, py in every if (px, py) != (0, 0)]
    reach = 0.5 + SLACK
    if any(abs(px - x) > reach * width or abs(py - y) > reach * height for px, py in points):
        return False
    if step == 3 and {0, 1, 2}.issuperset(more[2::3]):
        return True
    others = [(x, y), *points]
    return _is_far([width, height], others) or _is_amid([x, y], points)


def _pairs(numbers: list[float]) -> list[tuple[float, float]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _is_far(point: list[float], others: list[tuple[float, float]]) -> bool:
    """Whether a point lies far from the box around others; of a triangle's, twice as far."""
    allowed = FAR * (2 if len(others) == 2 else 1)
    bounds = _bounds(others)
    longer = max(high - low for low, high in bounds)
    apart = [max(low - v, v - high) for v, (low, high) in zip(point, bounds, strict=True)]
    return max(apart) > allowed * longer + 1e-6  # files round


def _is_amid(point: list[float], others: list[tuple[float, float]]) -> bool:
    """Whether a point lies well within the box around others."""
    bounds = _bounds(others)
    return bool(bounds) and all(
        low + 0.15 * (high - low) < v < high - 0.15 * (high - low)
        for v, (low, high) in zip(point, bounds, strict=True)
    )


def _bounds(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The least and the largest x, and y, of points."""
    return [(min(values), max(values)) for values in zip(*points, strict=True)]
