"""Any pixel format becomes 8-bit RGB, and nothing is clipped on the way."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from trainer.data import pixels
from trainer.data.canvas import open_picture
from trainer.data.pixels import GREY, NotFiniteError, to_rgb


def through(image: Image.Image, format: str, **options: Any) -> np.ndarray[Any, Any]:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    with Image.open(stream) as opened:
        rgb = to_rgb(opened)
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


def ramp(dtype: Any, top: float) -> Image.Image:
    return Image.fromarray(np.linspace(0, top, 256).astype(dtype).reshape(16, 16))


@pytest.mark.parametrize(
    ("dtype", "top", "format"),
    [
        (np.uint16, 65535, "PNG"),
        (np.uint16, 65535, "TIFF"),
        (np.float32, 1, "TIFF"),
        (np.float32, 255, "TIFF"),
        (np.int32, 65535, "TIFF"),
    ],
)
def test_deep_pixels_are_scaled_by_their_range(dtype: Any, top: float, format: str) -> None:
    pixels = through(ramp(dtype, top), format)
    assert np.abs(pixels[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


def test_a_declared_range_counts() -> None:
    pixels = through(ramp(np.uint16, 4095), "TIFF", tiffinfo={340: 0, 341: 4095})
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)


def test_nan_is_no_pixel() -> None:
    with pytest.raises(NotFiniteError):
        through(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")


def test_what_is_transparent_lies_on_grey() -> None:
    for mode in ("RGBA", "LA"):
        image = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
        image.putpixel((1, 0), (255, 255, 255, 0))
        assert through(image.convert(mode), "PNG").tolist() == [[[255] * 3, [GREY] * 3]]
    palette = Image.new("P", (1, 1), 3)
    palette.putpalette([9] * 12)
    assert through(palette, "PNG", transparency=3).tolist() == [[[GREY] * 3]]


def test_cmyk_goes_by_its_profile_and_a_broken_one_is_left_aside() -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    plain = through(image, "JPEG")
    assert plain[8, 8].tolist() == pytest.approx([0, 255, 255], abs=3)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # of RGB: unfit
    assert (through(image, "JPEG", icc_profile=srgb) == plain).all()
    assert (through(image, "JPEG", icc_profile=b"no profile") == plain).all()


def test_the_first_frame_counts() -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    for format in ("GIF", "TIFF", "MPO"):
        pixels = through(red, format, save_all=True, append_images=[blue])
        assert pixels[0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_left_aside(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_picture(tmp_path / "a.jpg").size == (4, 2)


def test_deep_pixels_are_rounded_to_the_nearest() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = through(Image.fromarray(levels), "PNG")
    assert (pixels[..., 0] == (levels.astype(int) * 2 + 257) // 514).all()  # of 65535, 257 a level


def test_strips_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    deep = Image.fromarray(draw.integers(0, 65536, (31, 7), dtype=np.uint16))
    clear = Image.fromarray(draw.integers(0, 256, (31, 7, 4), dtype=np.uint8), "RGBA")
    complete = [through(deep, "PNG"), through(clear, "PNG"), through(clear.convert("LA"), "PNG")]
    for strip in (1, 7, 20, 216):
        monkeypatch.setattr(pixels, "STRIP", strip)
        parts = [through(deep, "PNG"), through(clear, "PNG"), through(clear.convert("LA"), "PNG")]
        assert all((a == b).all() for a, b in zip(complete, parts, strict=True))


PEAK = """
import io, re, sys
from pathlib import Path
from PIL import Image
from trainer.data.pixels import to_rgb
def peak():  # not getrusage, which counts what the process was forked from
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
for file in sys.argv[1:]:
    to_rgb(Image.open(io.BytesIO(Path(file).read_bytes())))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says it so")
def test_a_deep_or_transparent_picture_takes_little_more_room_than_a_plain_one(
    tmp_path: Path,
) -> None:
    shape = (2000, 2000)
    deep = {"PNG": np.uint16, "TIFF": np.float32}
    for format, kind in deep.items():
        options = {"compression": "tiff_lzw"} if format == "TIFF" else {}
        Image.fromarray(np.zeros(shape, kind)).save(tmp_path / f"deep.{format}", format, **options)
    Image.new("RGBA", shape).save(tmp_path / "clear.png")
    Image.new("P", shape).save(tmp_path / "palette.png", transparency=0)
    line = [sys.executable, "-c", PEAK, *map(str, tmp_path.iterdir())]
    peak = 1024 * int(subprocess.run(line, capture_output=True, check=True).stdout)
    assert peak < 16 * shape[0] * shape[1]  # plain RGB: 8 bytes a pixel
