"""Canvases: where a picture lies on its square, and the one file that trials share."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOMEM
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

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
from trainer.data.checks.pictures import decode
from trainer.data.dataset import Picture, Split, Splits
from trainer.data.loading import load, load_split
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
        ((100, 67), (64, 43)),  # of 42.88
        ((128, 97), (64, 48)),  # of 48.5, a half to the even one, as Python rounds
        ((128, 99), (64, 50)),  # of 49.5
        ((67, 100), (43, 64)),
        ((97, 128), (48, 64)),
        ((99, 128), (50, 64)),
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


FORMATS: dict[str, dict[str, Any]] = {
    "png": {},
    "tiff": {},  # Pillow maps some of these
    "lzw.tiff": {"compression": "tiff_lzw"},
    "jpg": {"quality": 100, "subsampling": 0},
    "webp": {"lossless": True},
}
MODES = {
    "png": "1 L LA P RGB RGBA I;16",
    "tiff": "1 L LA P RGB RGBA CMYK YCbCr I;16 I F",
    "lzw.tiff": "1 L LA P RGB RGBA CMYK YCbCr I;16 I F",
    "jpg": "L RGB CMYK",
    "webp": "RGB RGBA",
}


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    grey = np.asarray(picture.convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    return picture.convert(mode)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("format", "mode"), [(f, m) for f in MODES for m in MODES[f].split()])
def test_a_picture_lies_as_it_is_seen(
    tmp_path: Path, make_picture: MakePicture, format: str, mode: str, orientation: int
) -> None:
    turn, seen = TURNS[orientation], in_mode(upright(), mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{format}"
    (seen if turn is None else seen.transpose(turn)).save(file, exif=exif, **FORMATS[format])
    pixels = letterbox(make_picture(file=file, size=(40, 20)), 40)
    wanted = seen if mode in {"1", "P", "CMYK", "YCbCr"} else upright()
    if mode in {"L", "LA", "I;16", "I", "F"}:
        wanted = wanted.convert("L")
    difference = pixels[:20].astype(int) - np.asarray(wanted.convert("RGB"))
    assert np.abs(difference).max() <= (0 if format != "jpg" else 120)  # at the edges of colours
    assert np.abs(difference).mean() <= (0 if format != "jpg" else 3)
    assert (pixels[20:] == GREY).all()
    found = decode(file.read_bytes(), "")
    assert (found.upright, found.orientation, found.problem) == ((40, 20), orientation, "")


def test_boxes_lie_on_what_they_bound_in_a_tiff_that_is_turned(tmp_path: Path) -> None:
    boxes = {"red": (2, 3, 20, 12), "blue": (40, 30, 48, 62)}  # as seen
    seen = Image.new("RGB", (60, 70))
    for name, corners in boxes.items():
        seen.paste(name, corners)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    seen.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "images" / "a.tiff", exif=exif)
    rows = [
        f"{label} {(x1 + x2) / 120} {(y1 + y2) / 140} {(x2 - x1) / 60} {(y2 - y1) / 70}"
        for label, (x1, y1, x2, y2) in enumerate(boxes.values())
    ]
    (tmp_path / "labels" / "a.txt").write_text("\n".join(rows))
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images\nnames: [red, blue]\n")
    (picture,) = load_split(Data(train=tmp_path / "data.yaml"), "train", tmp_path).pictures
    assert (picture.width, picture.height) == seen.size
    pixels = Image.fromarray(letterbox(picture, 140))  # twice as large
    for name, (x, y, width, height) in zip(boxes, 2 * picture.boxes.round(3), strict=True):
        inside = pixels.crop((int(x) + 2, int(y) + 2, int(x + width) - 2, int(y + height) - 2))
        assert inside.getcolors() == [(inside.width * inside.height, ImageColor.getrgb(name))]
        assert (2 * np.array(boxes[name])).tolist() == [x, y, x + width, y + height]


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
from trainer.data.loading import load
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


def test_a_picture_that_changed_since_it_was_checked_is_not_filed(
    tiny_data: Data, tmp_path: Path
) -> None:
    folder = copytree(tiny_data.train.parent, tmp_path / "data")
    split = load_split(Data(train=folder / "val.json"), "val", tmp_path)
    file = split.pictures[2].file
    before = file.read_bytes()
    file.write_bytes(split.pictures[3].file.read_bytes())
    stores = tmp_path / "stores"
    with pytest.raises(BadInput, match=rf"{file.name}: was changed after .* `unfreeze check`"):
        open_store(split, 64, stores)
    assert not list(stores.glob("*.npy"))
    file.write_bytes(before)
    assert (open_store(split, 64, stores)[2] == letterbox(split.pictures[2], 64)).all()


def test_few_canvases_wait_for_a_slow_disk(
    tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[int] = []
    made: list[int] = []

    def counted(picture: Picture, size: int) -> Any:
        made.append(picture.id)
        return letterbox(picture, size)

    @contextmanager
    def slow(*own: Any) -> Iterator[Callable[..., None]]:
        with mapped.writing(*own) as add:

            def add_slowly(row: Any) -> None:
                time.sleep(0.005)  # in which all others could be made
                add(row)
                ahead.append(len(made) - len(ahead))

            yield add_slowly

    monkeypatch.setattr(canvas, "letterbox", counted)
    monkeypatch.setattr(canvas, "writing", slow)
    monkeypatch.setattr(canvas, "AHEAD", 2)
    store = open_store(tiny.train, 64, tmp_path)
    assert len(made) == len(store) == 12
    assert max(ahead) <= 3


def test_canvases_are_made_side_by_side(
    tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=10)

    def together(picture: Picture, size: int) -> Any:
        both.wait()  # for another that is being made, which there is none of one by one
        return letterbox(picture, size)

    monkeypatch.setattr(canvas, "letterbox", together)
    monkeypatch.setattr(canvas, "AHEAD", 2)
    assert len(open_store(tiny.train, 32, tmp_path)) == 12


def test_a_store_that_cannot_be_read_back_is_an_error(
    tiny: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "find", lambda *_: None)
    with pytest.raises(OSError, match="what was written there is not what is read"):
        open_store(tiny.val, 32, tmp_path)


def test_what_a_process_that_died_left_of_a_store_goes(tiny: Splits, tmp_path: Path) -> None:
    left = tmp_path / f"{store_digest(tiny.val, 32)}.of-one-that-died.part"
    other = tmp_path / "of-another-store.1.part"
    left.touch()
    other.touch()
    steps: list[int] = []
    open_store(tiny.val, 32, tmp_path, lambda: steps.append(1))
    assert list(tmp_path.glob("*.part")) == [other]
    assert len(steps) >= len(tiny.val.pictures)  # whoever waits is told again and again


@pytest.mark.parametrize("error", [MemoryError(), OSError(ENOMEM, "Cannot allocate memory")])
def test_a_lack_of_memory_is_not_a_fault_of_the_picture(
    tiny: Splits, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(canvas, "to_rgb", fail)
    with pytest.raises(type(error)) as raised:
        letterbox(tiny.val.pictures[0], 32)
    assert raised.value is error


def test_a_picture_in_a_format_that_no_camera_writes_is_refused(
    make_picture: MakePicture, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(file, format="PCX")
    with pytest.raises(BadInput, match=r"a\.png: cannot be read as a picture"):
        letterbox(make_picture(file=file, size=(8, 8)), 8)


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unfreeze"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "unfreeze"
