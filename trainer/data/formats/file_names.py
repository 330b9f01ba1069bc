"""File names: which belong to a data set, and what those that lead nowhere may mean."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

from .folders import files_below, is_hidden

MANY = 100
"""No place is guessed if more files than this have the same last part, as frame 1 of many films."""


def visible(files: Iterable[Path], folder: Path) -> list[Path]:
    """The files below a folder, sorted, without hidden ones.

    A file is hidden if a part of its path begins with a dot: macOS's `._a.jpg`,
    `.ipynb_checkpoints/`.
    """
    return sorted(f for f in files if not any(map(is_hidden, f.relative_to(folder).parts)))


def composed(name: str) -> str:
    """A name in one spelling: é may be one letter, or an e and an accent (macOS)."""
    return name if name.isascii() else normalize("NFC", name)


def _parts(name: str) -> list[str]:
    """The parts of a name as Windows, a URL or another machine writes it, the last one last."""
    if "?d=" in name:  # Label Studio's address of a local file
        name = name.partition("?d=")[2]
    elif "://" in name:
        name = re.split(r"[?#]", name)[0]
    return [composed(part) for part in re.split(r"[/\\]", unquote(name)) if part] or [""]


class Listing:
    """The files in the picture folders. They are walked only when a picture is missing."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    @cached_property
    def _by_last_part(self) -> dict[str, list[tuple[Path, str]]]:
        """The folder, and the name in it, of every file by the last part of the name, caseless."""
        listed = defaultdict(list)
        for folder in self._folders:
            for file in sorted(files_below(folder)):
                key = composed(file.name).casefold()
                listed[key].append((folder, str(file.relative_to(folder))))
        return listed

    def _near(self, name: str) -> list[tuple[Path, str]]:
        return self._by_last_part.get(_parts(name)[-1].casefold(), [])

    def near(self, name: str) -> str:
        """The first file with this last part, whatever its case; empty if there is none."""
        return next((inner for _, inner in self._near(name)), "")

    def spelt_otherwise(self, name: str) -> str | None:
        """The file whose name differs only in how its letters are composed.

        The first folder with such a file counts; None if there is none, or several in it.
        """
        if name.isascii():
            return None
        for folder in self._folders:
            same = [
                inner
                for place, inner in self._by_last_part.get(_last(name), [])
                if place == folder and composed(inner) == composed(name)
            ]
            if same:
                return f"{folder.absolute()}/{same[0]}" if len(same) == 1 else None
        return None

    def hint(self, names: Sequence[str]) -> str:
        """Where the last parts of most of these names are, and how to write them; else empty."""
        places = [place for name in names if (place := self._place(name))]
        if not places:
            return ""
        (folder, below), count = Counter(place[:2] for place in places).most_common(1)[0]
        example = next(inner for *place, inner in places if place == [folder, below])
        which = "these names" if count == len(names) else f"{count} of these {len(names)} names"
        base = folder if below else "it"
        return (
            f"the last parts of {which} are in {folder}/{below}: write them relative to {base}, "
            f"as {example!r}"
        )

    def _place(self, name: str) -> tuple[Path, str, str] | None:
        """The one file that has most of the last parts of a name; None for none or several.

        Returns:
            Its picture folder, the folders below that the name lacks, and its name.
        """
        near = self._near(name)
        if len(near) > MANY:
            return None
        ends = [
            (count, folder, inner)
            for folder, inner in near
            if (count := _common_end(_parts(name), composed(inner).split("/")))
        ]
        most = max((count for count, *_ in ends), default=0)
        best = [(folder, inner) for count, folder, inner in ends if count == most]
        if len({folder / inner for folder, inner in best}) != 1:
            return None
        folder, inner = best[0]
        return folder, "/".join(inner.split("/")[:-most]), inner


def _last(name: str) -> str:
    return composed(name.rpartition("/")[2]).casefold()


def _common_end(one: list[str], other: list[str]) -> int:
    """How many last parts are equal."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
