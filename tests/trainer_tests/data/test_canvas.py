"""Canvases: where a picture lies on its square, and the one file that trials share."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.config import BadInput, Data
from trainer.data import canvas, mapped, pixels
from trainer.data.canvas import (
    cache_folder,
    fitted,
    letterbox,
    open_store,
    scales,
    store_digest,
    to_canvas,
)
from trainer.data.dataset import Picture, Split, Splits
from trainer.data.formats import load
from trainer.data.pixels import GREY

MakePicture = Callable[..., Picture]
MakeSplit = Callable[..., Split]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((96, 72), (64, 48)),
        ((72, 96), (48, 64)),
        ((64, 64), (64, 64)),
        ((10, 20), (32, 64)),
        ((1000, 1), (64, 1)),
        ((1, 1000), (1, 64)),
        ((101, 67), (64, 42)),
    ],
)
def test_a_picture_is_scaled_to_fit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(*size, 64) == expected
    made = to_canvas(Image.new("RGB", size, (255, 0, 9)), 64).pixels
    assert made.shape == (64, 64, 3)
    width, height = expected
    assert (made[:height, :width] == (255, 0, 9)).all()
    assert (made[height:] == GREY).all()
    assert (made[:, width:] == GREY).all()


def test_scales_lead_to_the_edge_of_the_picture() -> None:
    for size in ((96, 72), (101, 67), (1000, 1), (3, 2)):
        scale = scales(*size, 64)
        assert (size[0] * scale[0], size[1] * scale[1]) == pytest.approx(fitted(*size, 64))
        assert to_canvas(Image.new("RGB", size), 64).scale == scale


def upright() -> Image.Image:
    """40 x 20, red on the left, blue below right."""
    picture = Image.new("RGB", (40, 20), (0, 0, 0))
    picture.paste((255, 0, 0), (0, 0, 20, 20))
    picture.paste((0, 0, 255), (20, 10, 40, 20))
    return picture


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_lies_as_it_is_seen(
    tmp_path: Path, make_picture: MakePicture, orientation: int
) -> None:
    turn = TURNS[orientation]
    stored = upright() if turn is None else upright().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    pixels = letterbox(make_picture(file=tmp_path / "a.png", size=(40, 20)), 40)
    assert (pixels[:20] == np.asarray(upright())).all()
    assert (pixels[20:] == GREY).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, make_picture: MakePicture, mode: str) -> None:
    file = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(file)
    pixels = letterbox(make_picture(file=file, size=(8, 8)), 8)
    assert pixels.shape == (8, 8, 3)
    assert (pixels == 255).all()


def test_a_store_holds_the_canvases_in_order(tiny: Splits, tmp_path: Path) -> None:
    store = open_store(tiny.val, 64, tmp_path)
    assert store.shape == (6, 64, 64, 3)
    for row, picture in zip(store, tiny.val.pictures, strict=True):
        assert (row == letterbox(picture, 64)).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: os.truncate(file, 0),
        lambda file: os.truncate(file, file.stat().st_size - 1),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    ],
    ids=["empty", "truncated", "flipped"],
)
def test_a_damaged_store_is_made_again(
    tiny: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any],
) -> None:
    before = open_store(tiny.val, 64, tmp_path).copy()
    (file,) = tmp_path.glob("*.npy")
    whole = file.read_bytes()
    monkeypatch.setattr(mapped, "_checked", set())  # as another process finds it
    damage(file)
    assert (open_store(tiny.val, 64, tmp_path) == before).all()
    assert file.read_bytes() == whole


def test_canvases_that_nobody_opened_for_long_go_when_others_are_made(
    tiny: Splits, tmp_path: Path
) -> None:
    for size, age in ((64, canvas.UNUSED + 60), (80, canvas.UNUSED - 60)):
        made = set(tmp_path.glob("*.npy"))
        open_store(tiny.val, size, tmp_path)
        (file,) = set(tmp_path.glob("*.npy")) - made
        os.utime(file, (time.time() - age,) * 2)
    kept = file
    open_store(tiny.val, 96, tmp_path)
    assert kept in set(tmp_path.glob("*.npy")) and len(list(tmp_path.glob("*.npy"))) == 2


def test_other_code_or_another_pillow_makes_other_canvases(
    tiny: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store_digest(tiny.val, 64)
    monkeypatch.setattr(canvas, "_making", canvas._making.__wrapped__)
    assert store_digest(tiny.val, 64) == before
    monkeypatch.setattr(canvas.PIL, "__version__", "of tomorrow")
    assert store_digest(tiny.val, 64) != before
    monkeypatch.undo()
    monkeypatch.setattr(canvas, "_making", canvas._making.__wrapped__)
    monkeypatch.setattr(pixels, "__file__", canvas.__file__)
    assert store_digest(tiny.val, 64) != before


def test_a_store_is_made_once_and_only_read(tiny: Splits, tmp_path: Path) -> None:
    open_store(tiny.val, 64, tmp_path)
    (file,) = tmp_path.glob("*.npy")
    made = file.stat().st_ino
    again = open_store(tiny.val, 64, tmp_path)
    assert file.stat().st_ino == made
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 0


def test_equal_pictures_elsewhere_share_a_store(
    tiny: Splits, tiny_data: Data, tmp_path: Path
) -> None:
    elsewhere = copytree(tiny_data.train.parent, tmp_path / "elsewhere")
    content = json.loads((elsewhere / "val.json").read_text())
    content["annotations"] = content["annotations"][:1]  # boxes are not on a canvas
    (elsewhere / "val.json").write_text(json.dumps(content))
    copy = load(Data(train=elsewhere / "train.json", val=elsewhere / "val.json"), tmp_path)
    folder = tmp_path / "stores"
    open_store(tiny.val, 64, folder)
    open_store(copy.val, 64, folder)
    assert len(list(folder.glob("*.npy"))) == 1


def test_another_size_order_or_picture_is_another_store(
    tiny: Splits, make_split: MakeSplit, tmp_path: Path
) -> None:
    one, two = tiny.val.pictures[:2]
    open_store(make_split(one, two), 64, tmp_path)
    open_store(make_split(one, two), 96, tmp_path)
    open_store(make_split(one), 64, tmp_path)
    turned = open_store(make_split(two, one), 64, tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 4
    assert (turned[0] == letterbox(two, 64)).all()


OPEN = """
import sys
from pathlib import Path
from trainer.config import Data
from trainer.data import canvas
from trainer.data.formats import load
train, val, stores = map(Path, sys.argv[1:])
split = load(Data(train=train, val=val), stores).train
written = []
writing = canvas.writing
canvas.writing = lambda *own: written.append(0) or writing(*own)
print("ready", flush=True)
sys.stdin.readline()
print(canvas.open_store(split, 640, stores).sum(dtype="int64"), len(written))
"""


def test_two_processes_at_once_write_one_whole_file(
    tiny: Splits, tiny_data: Data, tmp_path: Path, run_two_at_once: Callable[..., list[str]]
) -> None:
    told = run_two_at_once(OPEN, tiny_data.train, tiny_data.val, tmp_path)
    sums, written = zip(*(map(int, line.split()) for line in told), strict=True)
    whole = sum(int(letterbox(p, 640).sum(dtype=np.int64)) for p in tiny.train.pictures)
    assert sums == (whole, whole)
    assert sum(written) == 1
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_store_that_fails_leaves_no_part_behind(
    tiny: Splits, make_picture: MakePicture, make_split: MakeSplit, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = make_picture(file=tmp_path / "broken.png")
    stores = tmp_path / "stores"
    with pytest.raises(BadInput, match=r"broken\.png: cannot be read as a picture"):
        open_store(make_split(tiny.val.pictures[0], broken), 64, stores)
    assert not [file.name for file in stores.iterdir() if file.suffix != ".lock"]


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unfreeze"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "unfreeze"
