"""Any pixel format to upright 8-bit RGB."""

import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")
"""What Pillow may take a file for: its other readers are for formats nobody photographs in."""
SUFFIXES = frozenset(
    ".jpg .jpeg .jfif .png .webp .bmp .tif .tiff .gif .ppm .pgm .avif .jp2 .mpo".split()
)
"""Of files that are taken for pictures where a folder is given."""
GREY = 114
"""Of what has no pixels, near the mean of ImageNet: a canvas beside its picture, and what is
transparent in one."""
DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
"""Pillow's modes of more than 8 bits."""
ORIENTATION = 0x0112
LEAST, MOST = 340, 341
"""TIFF tags of the range that samples are declared to have."""
STRIP = 2**18
"""Pixels that are converted at once, where that takes several times the room of the picture."""


class NotFinite(ValueError):
    """A picture holds NaN or infinity."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """The first frame of an opened picture, upright, RGB. Raises what Pillow raises, NotFinite.

    Open it from bytes: of a file, Pillow maps some TIFFs, and those it turns wrongly.
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
    """The pixels of an opened picture as EXIF says that they are seen; all that turns them."""
    picture.load()  # of a TIFF this turns them already, and takes the orientation away
    return ImageOps.exif_transpose(picture) if orientation(picture) != 1 else picture


def is_transparent(picture: Image.Image) -> bool:
    return picture.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in picture.info


def orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF raises whatever its parser stumbles over
        return 1
    return value if value in range(1, 9) else 1


def _by_strips(upright: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """RGB of a picture, some rows at a time."""
    made = Image.new("RGB", upright.size)
    for top, strip in _strips(upright):
        made.paste(convert(strip), (0, top))
    return made


def _strips(upright: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """A picture's rows in strips of at most STRIP pixels, or one row, and where each begins."""
    rows = max(1, STRIP // upright.width)
    for top in range(0, upright.height, rows):
        yield top, upright.crop((0, top, upright.width, min(top + rows, upright.height)))


def _on_grey(strip: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", strip.size, (GREY, GREY, GREY, 255))
    return Image.alpha_composite(ground, strip.convert("RGBA")).convert("RGB")


def _from_deep(upright: Image.Image, picture: Image.Image) -> Image.Image:
    tops = []
    for _, strip in _strips(upright):
        levels = _levels(strip)
        if not np.isfinite(levels).all():
            raise NotFinite("holds NaN or infinity")
        tops.append(float(levels.max()))
    least, most = _declared(picture, max(tops))

    def to_8_bits(strip: Image.Image) -> Image.Image:
        shares = (_levels(strip) - least) / max(most - least, 1e-12)
        return Image.fromarray((shares.clip(0, 1) * 255).round().astype(np.uint8))

    return _by_strips(upright, to_8_bits)


def _levels(strip: Image.Image) -> NDArray[np.float64]:
    return np.asarray(strip).astype(np.float64)


def _declared(picture: Image.Image, top: float) -> tuple[float, float]:
    """The range of samples, of which `top` is the highest: as the file says, else of their type,
    else the next usual one."""
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
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            found = ImageCms.profileToProfile(
                upright, own, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            found = None
        if found is not None:
            return found
    return upright.convert("RGB")
