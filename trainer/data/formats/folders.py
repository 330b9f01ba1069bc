"""What lies in the folders of a data set, and which names lead out of them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize


def files_below(folder: Path) -> Iterator[Path]:
    """All files, each by its path as written. A link to another folder is gone into, once.

    What begins with a dot is no part of a data set: macOS's `._a.jpg`, `.ipynb_checkpoints`.
    """
    entered = [os.path.realpath(folder)]
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = [n for n in sorted(inner) if not is_hidden(n) and _is_new(place, n, entered)]
        yield from (Path(place, name) for name in names if not is_hidden(name))


def _is_new(place: str, name: str, entered: list[str]) -> bool:
    """Whether a folder is one of its own, or the first link to one that no walk comes by."""
    path = os.path.join(place, name)
    if not os.path.islink(path):
        return True
    real = os.path.realpath(path)
    if any(is_below(Path(real), Path(folder)) for folder in entered):
        return False
    entered.append(real)
    return True


def is_hidden(name: str) -> bool:
    return name.startswith(".")


def as_spelt(file: Path) -> Path:
    """A file by the spelling that it has: é may be one letter, or an e and an accent (macOS)."""
    if not file.name.isascii() and not os.path.isfile(file):
        others = [file.with_name(normalize(form, file.name)) for form in ("NFC", "NFD")]
        return next(filter(os.path.isfile, others), file)
    return file


def leads_out(name: str) -> bool:
    """Whether a name could be of something outside the folder that it is looked for in."""
    parts = name.replace("\\", "/").split("/")
    is_absolute = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name)
    return bool(is_absolute) or ".." in parts or "://" in name or "\0" in name


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path says so as it is written, links not followed."""
    return f"{os.path.normpath(path)}/".startswith(f"{os.path.normpath(folder).rstrip('/')}/")
