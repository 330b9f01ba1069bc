"""Small YOLO data sets on disk, for tests."""

from pathlib import Path

from PIL import Image

from trainer.data.checks.examine import Examined, examine
from trainer.data.formats.layouts import find_layout

YAML = "names: [red, blue]\n"


def add(folder: Path, name: str, text: str | None, labels: str = "labels") -> None:
    """A picture of 40 x 20 in `folder`/images, and its boxes."""
    picture = folder / "images" / f"{name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    level = sum(map(ord, str(folder.name + name)))
    Image.new("RGB", (40, 20), (level % 256, level // 256, len(name))).save(picture)
    if text is not None:
        (folder / labels).mkdir(exist_ok=True)
        (folder / labels / f"{name}.txt").write_text(text)


def check(place: Path) -> Examined:
    return examine(find_layout(place), place.parent)


def codes(place: Path) -> set[str]:
    return {finding.code for finding in check(place).errors}


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def draw(file: Path, level: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 100), (level, level, level)).save(file)


def make_yolo(folder: Path) -> Path:
    """As Roboflow exports it, paths that lead astray included."""
    place = folder / "yolo"
    add(place / "train", "a", "1 0.5 0.5 0.25 0.5\n0 0.25 0.5 0.1 0.1\n")
    add(place / "valid", "b", "1 0.5 0.5 0.5 0.5\n")
    (place / "data.yaml").write_text(
        YAML + "nc: 2\ntrain: ../train/images\nval: ../valid/images\ndownload: touch ../ran\n"
    )
    return place
