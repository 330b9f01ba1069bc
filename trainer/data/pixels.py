"""Converts any pixel format to upright 8-bit RGB."""

import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
"""Formats that Pillow may read. Its other readers are for formats that no camera writes."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"}
    | {".gif", ".ppm", ".pgm", ".avif", ".jp2", ".mpo"}
)
"""Suffixes of the pictures in a folder."""
GREY = 114
"""Fills the canvas beside a picture and its transparent pixels; near the mean of ImageNet."""
DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
"""Pillow's modes with more than 8 bits."""
ORIENTATION = 0x0112
"""EXIF tag."""
LEAST, MOST = 340, 341
"""TIFF tags of the declared range of samples."""
STRIP = 2**18
"""Pixels that are converted at once, if converting takes several times the picture's memory."""


class NotFiniteError(ValueError):
    """A picture holds NaN or infinity."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """The first frame of an opened picture, upright, in RGB.

    Open the picture from bytes: some TIFFs that Pillow maps from a file are rotated wrongly.

    Raises:
        NotFiniteError: It holds NaN or infinity.
        Exception: Whatever Pillow raises for a broken file.
    """
    upright = turn_upright(picture)
    if picture.mode in DEEP:
        return _from_deep(upright, picture)
    if picture.mode == "CMYK":
        return _from_cmyk(upright, picture.info.get("icc_profile"))
    if is_transparent(picture):
        return _by_strips(upright, _on_grey)
    return upright.convert("RGB")


def turn_upright(picture: Image.Image) -> Image.Image:
    """Rotate and mirror an opened picture as EXIF says. No other function does so."""
    picture.load()  # this rotates a TIFF, and removes its orientation
    return ImageOps.exif_transpose(picture) if orientation(picture) != 1 else picture


def is_transparent(picture: Image.Image) -> bool:
    """Whether a picture has an alpha channel or a transparent colour."""
    return picture.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in picture.info


def orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 if there is none that can be read."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF raises almost anything
        return 1
    return value if value in range(1, 9) else 1


def _by_strips(upright: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture to RGB, some rows at a time."""
    rgb = Image.new("RGB", upright.size)
    for top, strip in _strips(upright):
        rgb.paste(convert(strip), (0, top))
    return rgb


def _strips(upright: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Strips of rows, each with at most STRIP pixels or one row, and the row where each begins."""
    rows = max(1, STRIP // upright.width)
    for top in range(0, upright.height, rows):
        yield top, upright.crop((0, top, upright.width, min(top + rows, upright.height)))


def _on_grey(strip: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", strip.size, (GREY, GREY, GREY, 255))
    return Image.alpha_composite(ground, strip.convert("RGBA")).convert("RGB")


def _from_deep(upright: Image.Image, picture: Image.Image) -> Image.Image:
    """Scale more than 8 bits to 8 by the range of the samples."""
    tops = []
    for _, strip in _strips(upright):
        levels = _levels(strip)
        if not np.isfinite(levels).all():
            raise NotFiniteError("holds NaN or infinity")
        tops.append(float(levels.max()))
    least, most = _range(picture, max(tops))

    def to_8_bits(strip: Image.Image) -> Image.Image:
        fractions = (_levels(strip) - least) / max(most - least, 1e-12)
        return Image.fromarray((fractions.clip(0, 1) * 255).round().astype(np.uint8))

    return _by_strips(upright, to_8_bits)


def _levels(strip: Image.Image) -> NDArray[np.float64]:
    return np.asarray(strip).astype(np.float64)


def _range(picture: Image.Image, top: float) -> tuple[float, float]:
    """The range of samples whose highest is `top`.

    The range that the file declares, else that of the type, else the next usual one.
    """
    tags = getattr(picture, "tag_v2", {})
    if LEAST in tags and MOST in tags:
        least, most = (np.min(tags[LEAST]), np.max(tags[MOST]))
        return float(least), float(most)
    if picture.mode.startswith("I;16"):
        return 0.0, 65535.0
    return 0.0, next((usual for usual in (1.0, 255.0, 65535.0) if top <= usual), top)


def _from_cmyk(upright: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            cmyk = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            rgb = ImageCms.profileToProfile(
                upright, cmyk, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            rgb = None
        if rgb is not None:
            return rgb
    return upright.convert("RGB")
