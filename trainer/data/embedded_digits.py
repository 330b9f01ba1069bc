"""The embedded data set: real handwritten digits on crops of real photographs, as COCO.

It is made at first use from data that scikit-learn ships, with the same pixels on every machine.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

DIGEST = "b2d65746becd2acfd403c7882377083e34fce1e9271a1080f3f5173b0556572e"
"""SHA-256 of all pixels and annotations. If you change the drawing, copy the new one from the
error message. It is not of PNG files, whose compression depends on zlib."""
SEED = 20
COUNTS = {"train": 240, "val": 80, "test": 80}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SIDE = 256
"""Side of a picture in pixels."""
CROPS = (128, 384)
"""Smallest and largest side of the square crop of a photograph that is the background."""
DIGITS = (4, 6)
"""Fewest and most digits in a picture."""
SIZES = (64, 120)
"""Smallest and largest side, in pixels, of the square a digit was written in."""
ROTATION = 10
"""Largest rotation either way, in degrees."""
OVERLAP = 0.1
"""Largest part of the smaller of two boxes that the other may cover."""
TRIES = 50
"""Positions that are tried for a digit before the next digit is drawn instead."""
SMOOTHING = 2
"""Digits are rotated at this multiple of their size, then scaled down, for smooth edges."""
OPACITY = [min(max(5 * (level - 64) // 2, 0), 255) for level in range(256)]
"""Opacity for each level of ink: thin strokes stay complete, edges are crisp."""
VISIBLE = [0] * 64 + [255] * 192
"""Opacities that count for the box."""
DARK, BRIGHT = (0, 60), (180, 255)
"""Smallest and largest red, green and blue of a digit."""

Sample = tuple[int, int, Image.Image]
"""Position in `load_digits`, digit, ink of 12x12 pixels with an empty margin of 2."""
Box = tuple[int, int, int, int]
"""x1, y1, x2, y2"""


def make_digits(cache: Path) -> Path:
    """The folder with train.json, val.json, test.json and images/, made at first use.

    Safe for many processes at once: the folder appears complete or not at all.
    """
    folder = cache / f"digits-{DIGEST[:12]}"
    if _is_made(folder):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=cache) as temporary:
        new = Path(temporary) / folder.name
        _make(new)
        try:
            new.rename(folder)
        except OSError:
            if not _is_made(folder):  # else another process was faster
                raise
    return folder


def _is_made(folder: Path) -> bool:
    return all((folder / f"{split}.json").is_file() for split in COUNTS)


def _make(folder: Path) -> None:
    pictures, annotations = _draw()
    digest = hashlib.sha256()
    for picture in pictures.values():
        digest.update(picture.tobytes())
    for text in annotations.values():
        digest.update(text)
    if digest.hexdigest() != DIGEST:
        raise RuntimeError(
            f"the digits made here have digest {digest.hexdigest()}, not {DIGEST}: the installed "
            "numpy, Pillow or scikit-learn draws them differently"
        )
    (folder / "images").mkdir(parents=True)
    for file, text in annotations.items():
        (folder / file).write_bytes(text)
    # threads are no faster (measured)
    for file, picture in pictures.items():
        picture.save(folder / "images" / file, compress_level=1)


def _draw() -> tuple[dict[str, Image.Image], dict[str, bytes]]:
    """Pictures and COCO texts by file name."""
    generator = Generator(np.random.PCG64(SEED))
    photographs = _photographs()
    samples = _samples(generator)
    pictures: dict[str, Image.Image] = {}
    texts: dict[str, bytes] = {}
    for split, count in COUNTS.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(1, count + 1):
            file = f"{split}-{i:03}.png"
            pictures[file], boxes = _draw_picture(generator, photographs, samples[split])
            images.append({"id": i, "file_name": file, "width": SIDE, "height": SIDE})
            for sample, digit, box in boxes:
                annotation = _annotation(sample, digit, box)
                annotations.append({"id": len(annotations) + 1, "image_id": i, **annotation})
        categories = [{"id": digit + 1, "name": name} for digit, name in enumerate(NAMES)]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        texts[f"{split}.json"] = json.dumps(coco).encode()
    return pictures, texts


def _photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images  # slow to import

    return [Image.fromarray(photograph) for photograph in load_sample_images().images]


def _samples(generator: Generator) -> dict[str, Iterator[Sample]]:
    """An endless iterator of shuffled digits per split; no sample is in two splits."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    levels = (digits.images.astype(np.int64) * 255 // 16).astype(
        np.uint8
    )  # load_digits has 0 to 16
    ink = np.pad(levels, ((0, 0), (2, 2), (2, 2)))
    order = generator.permutation(len(ink)).tolist()
    samples = [(i, int(digits.target[i]), Image.fromarray(ink[i])) for i in order]
    by_split: dict[str, Iterator[Sample]] = {}
    for split, count in COUNTS.items():
        number = len(ink) * count // sum(COUNTS.values())
        by_split[split], samples = cycle(samples[:number]), samples[number:]
    return by_split


def _annotation(sample: int, digit: int, box: Box) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "category_id": digit + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "sample": sample,
    }


def _draw_picture(
    generator: Generator, photographs: list[Image.Image], samples: Iterator[Sample]
) -> tuple[Image.Image, list[tuple[int, int, Box]]]:
    """A picture, and the sample, digit and box of each digit in it."""
    picture = _background(generator, photographs)
    drawn: list[tuple[int, int, Box]] = []
    wanted = _between(generator, *DIGITS)
    while len(drawn) < wanted:
        sample, digit, ink = next(samples)
        mask = _mask(ink, _between(generator, *SIZES), _between(generator, -ROTATION, ROTATION))
        placed = _place(generator, picture, mask, [box for _, _, box in drawn])
        if placed is not None:
            box, (least, largest) = placed
            red, green, blue = (_between(generator, least, largest) for _ in "rgb")
            picture.paste((red, green, blue), box, mask)
            drawn.append((sample, digit, box))
    return picture, drawn


def _between(generator: Generator, least: int, largest: int) -> int:
    return int(generator.integers(least, largest, endpoint=True))


def _background(generator: Generator, photographs: list[Image.Image]) -> Image.Image:
    photograph = photographs[_between(generator, 0, len(photographs) - 1)]
    side = _between(generator, *CROPS)
    x = _between(generator, 0, photograph.width - side)
    y = _between(generator, 0, photograph.height - side)
    crop = photograph.crop((x, y, x + side, y + side))
    return crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _mask(ink: Image.Image, size: int, degrees: int) -> Image.Image:
    """Opacity of the digit, cropped to its visible pixels.

    Pillow calculates each step in integers. It rotates in integers only without interpolation;
    interpolation would round differently on processors that fuse multiplication and addition.
    """
    side = SMOOTHING * size * ink.width // 8  # 8 of the columns hold the digit
    large = ink.resize((side, side), Image.Resampling.BICUBIC)
    rotated = large.rotate(degrees, Image.Resampling.NEAREST).reduce(SMOOTHING)
    mask = rotated.point(OPACITY)
    return mask.crop(mask.point(VISIBLE).getbbox())


def _place(
    generator: Generator, picture: Image.Image, mask: Image.Image, taken: list[Box]
) -> tuple[Box, tuple[int, int]] | None:
    """A free place where the digit can be read, and its tint there; None if there is none."""
    levels = np.asarray(picture.convert("L"))
    for _ in range(TRIES):
        x = _between(generator, 0, SIDE - mask.width)
        y = _between(generator, 0, SIDE - mask.height)
        box = (x, y, x + mask.width, y + mask.height)
        if all(_overlap(box, other) <= OVERLAP for other in taken):
            tint = _tint(levels[y : box[3], x : box[2]])
            if tint is not None:
                return box, tint
    return None


def _overlap(a: Box, b: Box) -> float:
    """Fraction of the smaller box that the other covers."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))


def _tint(levels: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Range of red, green and blue that stands out; None if the background is dark and bright."""
    enough = levels.size * 5 // 6
    if np.count_nonzero(levels < 130) > enough:
        return BRIGHT
    return DARK if np.count_nonzero(levels > 120) > enough else None
