"""Any pixel format to upright 8-bit RGB."""

import io
from typing import Any

import numpy as np
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


class NotFinite(ValueError):
    """A picture holds NaN or infinity."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """The first frame of an opened picture, upright, RGB. Raises what Pillow raises, NotFinite."""
    upright = ImageOps.exif_transpose(picture) if orientation(picture) != 1 else picture
    if picture.mode in DEEP:
        return _from_deep(upright, picture)
    if picture.mode == "CMYK":
        return _from_cmyk(upright, picture.info.get("icc_profile"))
    if is_transparent(picture):
        colours = upright.convert("RGBA")
        ground = Image.new("RGBA", colours.size, (GREY, GREY, GREY, 255))
        return Image.alpha_composite(ground, colours).convert("RGB")
    return upright.convert("RGB")


def is_transparent(picture: Image.Image) -> bool:
    return picture.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in picture.info


def orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF raises whatever its parser stumbles over
        return 1
    return value if value in range(1, 9) else 1


def _from_deep(upright: Image.Image, picture: Image.Image) -> Image.Image:
    levels = np.asarray(upright).astype(np.float64)
    if not np.isfinite(levels).all():
        raise NotFinite("holds NaN or infinity")
    least, most = _declared(picture, levels)
    shares = (levels - least) / max(most - least, 1e-12)
    return Image.fromarray((shares.clip(0, 1) * 255).round().astype(np.uint8)).convert("RGB")


def _declared(picture: Image.Image, levels: Any) -> tuple[float, float]:
    """The range of samples: as the file says, else of their type, else the next usual one."""
    tags = getattr(picture, "tag_v2", {})
    if LEAST in tags and MOST in tags:
        least, most = (np.min(tags[LEAST]), np.max(tags[MOST]))
        return float(least), float(most)
    if picture.mode.startswith("I;16"):
        return 0.0, 65535.0
    return 0.0, next((top for top in (1.0, 255.0, 65535.0) if levels.max() <= top), levels.max())


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
