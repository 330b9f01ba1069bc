"""A sound COCO data set on disk, ways to spoil it, and what the checks say then."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainer.config import Model
from trainer.data.canvas import cache_folder
from trainer.data.checks.examine import Examined, examine
from trainer.data.finding_messages import allowable
from trainer.data.formats.layouts import find_layout

Coco = dict[str, Any]


Spoil = Callable[[Path], Any]


SIZE = (40, 30)


COUNTS = {"train": 12, "val": 8}


def pixels(name: str, size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    return np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)


def picture(name: str, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(pixels(name, size))


def tree(place: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def edit(change: Callable[[Coco], Any], split: str = "train") -> Spoil:
    def spoil(place: Path) -> None:
        file = place / f"{split}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def with_box(*box: Any) -> Spoil:
    return edit(lambda c: c["annotations"][7].update(bbox=list(box)))


def with_image(**fields: Any) -> Spoil:
    return edit(lambda c: c["images"][3].update(**fields))


def every_box(change: Callable[[list[float]], list[float]]) -> Spoil:
    return edit(lambda c: [a.update(bbox=change(a["bbox"])) for a in c["annotations"]])


def with_file(content: bytes) -> Spoil:
    return lambda place: (place / "images" / "train-3.png").write_bytes(content)


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> Spoil:
    return lambda place: image.save(place / "images" / "train-3.png", format, **options)


def with_text(content: bytes) -> Spoil:
    return lambda place: (place / "train.json").write_bytes(content)


def encoded(encoding: str) -> Spoil:
    return lambda place: (place / "train.json").write_bytes(
        (place / "train.json").read_text().encode(encoding)
    )


def both(*spoils: Spoil) -> Spoil:
    return lambda place: [spoil(place) for spoil in spoils]


def to_far_corners(box: list[float]) -> list[float]:
    x, y, width, height = box[0] + 6, box[1] + 8, box[2], box[3]
    return [x, y, x + width, y + height]


def with_a_class_in_val_alone(place: Path) -> None:
    for split in COUNTS:
        edit(lambda c: c["categories"].append({"id": 7, "name": "green"}), split)(place)
    edit(lambda c: c["annotations"][0].update(category_id=7), "val")(place)


def cut(format: str) -> Spoil:
    def spoil(place: Path) -> None:
        file = place / "images" / "train-3.png"
        picture("cut", (200, 150)).resize(SIZE).save(file, format)
        file.write_bytes(file.read_bytes()[:-400])

    return spoil


def with_a_flipped_bit(place: Path) -> None:
    file = place / "images" / "train-3.png"
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 1
    file.write_bytes(content)


def with_a_link(place: Path) -> None:
    (place / "images" / "train-3.png").rename(place.parent / "elsewhere.png")
    (place / "images" / "train-3.png").symlink_to(place.parent / "elsewhere.png")


def huge() -> bytes:
    """A PNG that says it has 40,000 x 40,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


E3 = {"image": 3, "file": "train-3.png"}


A7 = {**E3, "annotation": 7}


def make_sound_set(folder: Path) -> Path:
    """A sound COCO data set; image 3 is `train-3.png`, annotations 6 and 7 are on it."""
    place = folder / "data set, naïve 数"
    (place / "images").mkdir(parents=True)
    for split, count in COUNTS.items():
        images: list[Coco] = []
        annotations: list[Coco] = []
        for i in range(count):
            name = f"{split}-{i}.png"
            picture(name).save(place / "images" / name)
            images.append({"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            for category in (0, 90):
                box = [2 + i, 3, 10 + category / 10, 12]
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": i,
                        "category_id": category,
                        "bbox": box,
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": 0, "name": "red"}, {"id": 90, "name": "blue"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (place / f"{split}.json").write_text(json.dumps(content))
    return place


def examined(place: Path, *allow: str) -> Examined:
    """What the checks say of a data set, which stays as it is to the byte."""
    before = tree(place)
    data = find_layout(place).model_copy(update={"allow": list(allow)})
    examined = examine(data, cache_folder(), model=Model())
    assert tree(place) == before
    return examined


def codes(examined: Examined, severity: str = "error") -> list[str]:
    return [finding.code for finding in examined.findings if finding.severity == severity]


def check_error(place: Path, code: str, spoil: Spoil, at: dict[str, Any]) -> None:
    """An error with this code and place is reported, and is a warning once it is allowed."""
    spoil(place)
    finding = next(f for f in examined(place).findings if f.code == code)
    assert finding.severity == "error" and finding.count >= 1
    assert vars(finding.places[0]).items() >= at.items()
    if code in allowable():
        allowed = examined(place, code)
        assert next(f for f in allowed.findings if f.code == code).severity == "warning"
        assert any("as allowed" in note for note in allowed.notes)


def check_no_error(place: Path, code: str, spoil: Spoil, severity: str) -> None:
    """A warning or note with this code is reported, and no error."""
    spoil(place)
    result = examined(place)
    assert codes(result) == [] and code in codes(result, severity)
