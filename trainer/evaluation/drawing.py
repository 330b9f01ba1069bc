"""Pictures with boxes, names and scores drawn on them."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..data.dataset import Category
from ..text.escaping import printable

SMALL, NARROW, LARGE = 480, 160, 8000
"""Pixels. A picture is drawn enlarged, so that names can be read, if its longer side has fewer than
SMALL or its shorter side fewer than NARROW, unless the longer side would have more than LARGE."""
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


@dataclass(frozen=True)
class Box:
    """One detection, or one true box, in pixels of the original picture."""

    category: Category
    score: float | None
    """None for a true box."""
    xywh: tuple[float, float, float, float]


def draw(
    picture: Image.Image,
    boxes: list[Box],
    truth: list[Box] | None = None,
    *,
    enlarge: bool = True,
) -> Image.Image:
    """Draw boxes, names and scores; true boxes are white and lie beneath.

    With `enlarge`, a small picture is enlarged by an integer factor.
    """
    factor = 1
    if enlarge:
        factor = max(-(-SMALL // max(picture.size)), -(-NARROW // min(picture.size)))
        factor = max(1, min(factor, LARGE // max(picture.size)))
    drawn = picture.resize((picture.width * factor, picture.height * factor))
    pen = ImageDraw.Draw(drawn)
    side = min(max(drawn.size), 4 * min(drawn.size))  # for a strip, less than its length
    thick = max(2, round(side / 320))
    font = ImageFont.load_default(size=max(14, round(side / 45)))
    for box in truth or []:
        pen.rectangle(_corners(box, factor), outline="white", width=thick)
    for box in reversed(boxes):  # the highest score on top
        pen.rectangle(_corners(box, factor), outline=_colour(box), width=thick)
    for box in reversed(boxes):  # after all boxes, so that none crosses a name
        score = "" if box.score is None else f" {box.score:.2f}"
        name = printable(box.category.name)
        _draw_label(pen, _corners(box, factor), f"{name}{score}", _colour(box), font)
    return drawn


def _colour(box: Box) -> str:
    return COLOURS[box.category.id % len(COLOURS)]


def _corners(box: Box, factor: int) -> tuple[float, float, float, float]:
    x, y, width, height = (factor * value for value in box.xywh)
    return x, y, x + width, y + height


def _draw_label(
    pen: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write above the box if there is room, else inside it at its top."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = max(0, min(corners[0], pen.im.size[0] - width))
    y = corners[1] - height if corners[1] >= height else corners[1]
    red, green, blue = ImageColor.getrgb(colour)[:3]
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "white"
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), text, fill=ink, font=font)


def unused_name(file: Path, taken: set[str]) -> str:
    """A name for a drawn picture that is not taken yet, and is taken from now on.

    Pictures of several folders may have equal names.
    """
    name, n = f"{file.stem}.jpg", 1
    while name.casefold() in taken:  # on many disks `A.jpg` is `a.jpg`
        n += 1
        name = f"{file.stem}-{n}.jpg"
    taken.add(name.casefold())
    return name
