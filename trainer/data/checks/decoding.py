"""Decodes every picture once, on all cores, and says what is wrong with it."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Lock

from PIL import Image

from ..pixels import (
    DEEP,
    FORMATS,
    NotFiniteError,
    is_transparent,
    orientation,
    to_rgb,
    turn_upright,
)
from .decoding_cache import FILE, DecodingCache, PictureFacts, identity


def inspect(
    files: list[Path], cache: Path, step: Callable[[int], None] = lambda _: None
) -> list[PictureFacts]:
    """Decode every file that was not decoded before.

    Args:
        files: Pictures.
        cache: The folder where facts are kept.
        step: Called with how many more are done.
    """
    identities = [identity(file) for file in files]
    with closing(DecodingCache(cache / FILE, identities)) as kept:
        new = [i for i, each in enumerate(identities) if each not in kept.known]
        step(len(files) - len(new))
        one_at_a_time = Lock()

        def read(i: int) -> PictureFacts:
            try:
                content = files[i].read_bytes()
            except OSError as error:
                return PictureFacts("", problem="picture-unreadable", detail=_reason(error))
            sha256 = hashlib.sha256(content).hexdigest()
            with one_at_a_time:
                before = kept.of_content(sha256)
            return before or decode(content, sha256)

        decoded: dict[int, PictureFacts] = {}
        with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            warnings.simplefilter("ignore")  # Pillow's: here they become findings
            for i, facts in zip(new, pool.map(read, new), strict=True):
                decoded[i] = facts
                step(1)
        # a file that could not be read at all may be readable the next time
        kept.add([(identities[i], facts) for i, facts in decoded.items() if facts.sha256])
    return [decoded[i] if i in decoded else kept.known[each] for i, each in enumerate(identities)]


def decode(content: bytes, sha256: str) -> PictureFacts:
    """All facts of a picture file; never raises because of what the file holds."""
    if not content:
        return PictureFacts(sha256, problem="picture-empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if picture.format == "PNG":
                picture.verify()  # its checksums, which decoding skips
                picture = Image.open(io.BytesIO(content), formats=FORMATS)
            return _decode(picture, sha256)
    except Image.DecompressionBombError as error:
        return PictureFacts(sha256, problem="picture-huge", detail=str(error))
    except NotFiniteError:
        return PictureFacts(sha256, problem="pixels-not-finite")
    except Exception as error:  # a broken file makes Pillow raise almost anything
        truncated = "truncated" in str(error).lower()
        problem = "picture-truncated" if truncated else "picture-unreadable"
        return PictureFacts(sha256, problem=problem, detail=_reason(error))


def _decode(picture: Image.Image, sha256: str) -> PictureFacts:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow refuses more
    if limit and picture.width * picture.height > limit:
        size = f"{picture.width} x {picture.height} pixels, at most {limit} in all"
        return PictureFacts(sha256, problem="picture-huge", detail=size)
    facts = {
        "orientation": orientation(picture),  # decoding removes it from some
        "format": picture.format or "",
        "pixels": _pixels(picture),
    }
    is_plain = picture.mode in {"RGB", "L", "YCbCr"}
    upright = turn_upright(picture) if is_plain else to_rgb(picture)
    return PictureFacts(sha256, upright.width, upright.height, **facts)  # type: ignore[arg-type]


def _pixels(picture: Image.Image) -> tuple[str, ...]:
    """Codes of findings about the kind of pixels."""
    applies = {
        "pixels-grey": picture.mode in {"L", "1", "P"},
        "pixels-deep": picture.mode in DEEP,
        "pixels-transparent": is_transparent(picture),
        "pixels-cmyk": picture.mode == "CMYK",
        "pixels-frames": getattr(picture, "n_frames", 1) > 1,
    }
    return tuple(code for code, applied in applies.items() if applied)


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return "is no picture" if "cannot identify" in text else text or type(error).__name__
