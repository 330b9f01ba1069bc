"""Sheets of pictures: the truth at the left and the detections at the right."""

import io
from collections import Counter
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..data.canvas import open_picture
from ..data.dataset import Picture, Split
from ..text.escaping import printable
from .drawing import Box, draw

THRESHOLD = 0.4
"""The least score of a detection that is drawn, and counts as right or wrong."""
ACROSS = 2
"""Pairs of pictures in a row."""
TILE, GAP, TITLE = 320, 12, 26
"""Pixels: a picture's longer side, the space between pairs, and the height of a title."""


def make_sheet(
    split: Split, pictures: Sequence[Picture], boxes: dict[int, list[Box]], captions: dict[int, str]
) -> bytes:
    """Truth and detections of each picture, side by side, as a JPEG.

    Args:
        split: Has the classes, and the pictures whose names may repeat.
        pictures: At least one.
        boxes: Detections by picture id.
        captions: Texts by picture id.
    """
    names = Counter(picture.file.name for picture in split.pictures)
    cells = [
        make_pair(split, picture, boxes, captions.get(picture.id, ""), names[picture.file.name] > 1)
        for picture in pictures
    ]
    width = max(cell.width for cell in cells)
    rows = [cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)]
    heights = [max(cell.height for cell in row) for row in rows]
    across = min(ACROSS, len(cells))
    size = across * width + (across - 1) * GAP, sum(heights) + (len(rows) - 1) * GAP
    sheet = Image.new("RGB", size, "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * (width + GAP), top))
        top += height + GAP
    content = io.BytesIO()
    sheet.save(content, format="JPEG", quality=80)
    return content.getvalue()


def make_pair(
    split: Split,
    picture: Picture,
    boxes: dict[int, list[Box]],
    caption: str,
    with_folder: bool = False,
) -> Image.Image:
    """Truth and detections of one picture; `with_folder` adds its folder to its name."""
    opened = open_picture(picture.file, picture.sha256)
    scale = TILE / max(opened.size)
    size = max(1, round(opened.width * scale)), max(1, round(opened.height * scale))
    small = opened.resize(size, Image.Resampling.BILINEAR)
    truth = [
        Box(split.categories[label - 1], None, (box[0], box[1], box[2], box[3]))
        for box, label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True)
    ]
    pair = Image.new("RGB", (2 * small.width + 2, small.height + TITLE), "white")
    for half, left in ((truth, 0), (boxes.get(picture.id, []), small.width + 2)):
        drawn = draw(small, [_scaled(box, scale) for box in half], enlarge=False)
        pair.paste(drawn, (left, TITLE))
    pen, font = ImageDraw.Draw(pair), ImageFont.load_default(size=15)
    name = "/".join(picture.file.parts[-2:]) if with_folder else picture.file.name
    pen.text((2, 4), f"{printable(name)}: truth", fill="black", font=font)
    heading = f"detected: {caption}" if caption else f"detected, score {THRESHOLD} or more"
    pen.text((small.width + 4, 4), heading, fill="black", font=font)
    return pair


def _scaled(box: Box, scale: float) -> Box:
    x, y, width, height = box.xywh
    return Box(box.category, box.score, (x * scale, y * scale, width * scale, height * scale))
