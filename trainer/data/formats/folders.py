"""Files in the folders of a data set, and names that lead out of them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize


def files_below(folder: Path) -> Iterator[Path]:
    """All files, each by its path as written; a link to another folder is followed once.

    Names that begin with a dot are no part of a data set: macOS's `._a.jpg`, `.ipynb_checkpoints`.
    """
    entered = [os.path.realpath(folder)]
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = [
            n for n in sorted(inner) if not is_hidden(n) and _is_new(Path(place, n), entered)
        ]
        yield from (Path(place, name) for name in names if not is_hidden(name))


def _is_new(place: Path, entered: list[str]) -> bool:
    """Whether it is a folder and no link, or the first link to a folder outside those entered."""
    if not place.is_symlink():
        return True
    real = os.path.realpath(place)
    if any(is_below(Path(real), Path(folder)) for folder in entered):
        return False
    entered.append(real)
    return True


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot."""
    return name.startswith(".")


def is_file(place: str | Path) -> bool:
    """Whether it is a file; False too for a name that no system can look up.

    `Path.is_file` raises for a name that is too long.
    """
    return os.path.isfile(place)  # noqa: PTH113


def is_folder(place: str | Path) -> bool:
    """Whether it is a folder; False too for a name that no system can look up."""
    return os.path.isdir(place)  # noqa: PTH112


def as_spelt(file: Path) -> Path:
    """A file in the spelling that it has on disk.

    é may be one letter, or an e and an accent (macOS).
    """
    if not file.name.isascii() and not is_file(file):
        others = [file.with_name(normalize(form, file.name)) for form in ("NFC", "NFD")]
        return next(filter(is_file, others), file)
    return file


def leads_out(name: str) -> bool:
    """Whether a name could lead out of the folder in which it is looked for."""
    parts = name.replace("\\", "/").split("/")
    is_absolute = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name)
    return bool(is_absolute) or ".." in parts or "://" in name or "\0" in name


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path lies below a folder as it is written; links are not followed."""
    return f"{os.path.normpath(path)}/".startswith(f"{os.path.normpath(folder).rstrip('/')}/")
