"""Any pixel format becomes 8-bit RGB, and nothing is clipped on the way."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from trainer.data.canvas import open_picture
from trainer.data.pixels import GREY, NotFinite, to_rgb


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
    with pytest.raises(NotFinite):
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
