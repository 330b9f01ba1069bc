"""Canvases: where a picture lies on its square, and how it is opened."""

from collections.abc import Callable
from errno import ENOMEM
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from trainer.config import Data, InputError
from trainer.data import canvas
from trainer.data.canvas import cache_folder, fitted, letterbox, scales, to_canvas
from trainer.data.checks.decoding import decode
from trainer.data.dataset import Picture, Split, Splits
from trainer.data.loading import load_split
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
    facts = decode(file.read_bytes(), "")
    assert (facts.upright, facts.orientation, facts.problem) == ((40, 20), orientation, "")


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
    with pytest.raises(InputError, match=r"a\.png: cannot be read as a picture"):
        letterbox(make_picture(file=file, size=(8, 8)), 8)


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unfreeze"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "unfreeze"
