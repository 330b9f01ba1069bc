"""YOLO's label files: each row is an object, its class and the numbers of a box or a polygon."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

BOX = 4
"""Numbers of a box: x and y of its centre, width, height, as fractions of the picture."""
SLACK = 0.1
"""How far keypoints may lie outside their box, as a fraction of its sides."""
FAR = 1.0
"""How far a vertex may lie from the box around all others, as a multiple of the longer side.
A vertex of a parallelogram reaches 1."""


@dataclass(frozen=True)
class Row:
    """One line of a label file that is not empty."""

    line: int
    """From 1."""
    label: int | None
    """The class; None if it is no integer."""
    numbers: list[float] | None
    """The numbers after the class. None if there is other text, which is never shown: the file
    could be a link to anyone's."""

    @property
    def box(self) -> Any:
        """x, y, width, height as fractions, also around a polygon; other rows as they are."""
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
    """The rows of a label file; a file that is no text gives one row without numbers."""
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
        label, *numbers = (float(word) for word in words)  # a word of any length, to infinity
    except ValueError:
        return Row(line, 0, None)
    is_class = label.is_integer() and abs(label) < 2**63
    return Row(line, int(label) if is_class else None, numbers)


def is_polygon(numbers: list[float]) -> bool:
    """Whether a row has pairs of numbers, more than a box has."""
    return len(numbers) > BOX and len(numbers) % 2 == 0


def is_of_another_task(numbers: list[float]) -> bool:
    """Whether a row with more numbers than a box is of tracks, predictions or keypoints.

    Such a row begins with a box. Read as a polygon, its second point (width and height) lies far
    from all others, or its first (the centre) lies amid all others, where no outline passes.
    Some rows with few, large keypoints are not recognised.
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
        return True  # it ends with a confidence, an id or both
    return any(_are_keypoints(box, more, step) for step in (2, 3) if len(more) % step == 0)


def _ends_with_id(numbers: list[float]) -> bool:
    """Whether what would be a polygon's last vertex is a confidence and an id."""
    possible = is_polygon(numbers) and len(numbers) > BOX + 2 and numbers[-1].is_integer()
    return possible and _is_far(numbers[-2:], _pairs(numbers[:-2]))


def _is_within(centre: float, side: float) -> bool:
    """Whether a box lies inside its picture along one axis."""
    return side > 0 and side / 2 - 0.01 <= centre <= 1.01 - side / 2


def _are_keypoints(box: list[float], more: list[float], step: int) -> bool:
    """Whether these are x and y, or x, y and visibility, of points in a box.

    0 0 stands for a keypoint that is not in the picture.
    """
    x, y, width, height = box
    pairs = zip(more[::step], more[1::step], strict=True)
    points = [(px, py) for px, py in pairs if (px, py) != (0, 0)]
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
    """Whether a point lies far from the box around others; for a triangle the limit is doubled."""
    allowed = FAR * (2 if len(others) == 2 else 1)
    bounds = _bounds(others)
    longer = max(high - low for low, high in bounds)
    apart = [max(low - v, v - high) for v, (low, high) in zip(point, bounds, strict=True)]
    return max(apart) > allowed * longer + 1e-6  # numbers in files are rounded


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
