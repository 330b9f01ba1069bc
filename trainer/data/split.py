"""Splits by content: the same pictures land on the same side on every machine."""

from collections import Counter, defaultdict
from dataclasses import replace

from ..config import InputError
from .dataset import Picture, Split


def split_off(split: Split, name: str, fraction: float) -> tuple[Split, Split]:
    """Split off about `fraction` of the pictures, and of those of each class, as a new split.

    A picture's side follows from the digest of its file and from what the others hold, not from
    names or order. Equal files stay on one side. A class on two different pictures or more is on
    both sides if others do not prevent it. Both sides always have boxes that are no crowds.

    Raises:
        InputError: One side would have no picture, or no box but crowds.
    """
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in split.pictures:
        groups[picture.sha256].append(picture)
    if len(groups) < 2:
        raise InputError(
            [f"data.{name}: train has too few pictures to split some off; give {name}"]
        )
    with_objects = {sha for sha, same in groups.items() if any((~p.crowd).any() for p in same)}
    if len(with_objects) < 2:
        which = "only one picture of train has" if with_objects else "no picture of train has"
        raise InputError(
            [
                f"data.{name}: {which} boxes that count (no crowds), but train and {name} need "
                f"some each; annotate another picture, or give {name}"
            ]
        )
    labels = {sha: _labels(same) for sha, same in groups.items()}
    return _parted(split, name, _choose(labels, with_objects, fraction))


def split_chosen(split: Split, name: str, chosen: set[str]) -> tuple[Split, Split] | None:
    """Split off the files with these digests; None if some are missing or none would be left."""
    if not chosen or not chosen < {picture.sha256 for picture in split.pictures}:
        return None
    return _parted(split, name, chosen)


def _parted(split: Split, name: str, chosen: set[str]) -> tuple[Split, Split]:
    return (
        replace(split, pictures=tuple(p for p in split.pictures if p.sha256 not in chosen)),
        replace(split, name=name, pictures=tuple(p for p in split.pictures if p.sha256 in chosen)),
    )


def _labels(pictures: list[Picture]) -> set[int]:
    """The classes on equal files; 0 stands for pictures without boxes."""
    return {int(label) for picture in pictures for label in picture.labels} or {0}


def _choose(groups: dict[str, set[int]], with_objects: set[str], fraction: float) -> set[str]:
    """The files that are split off: some of `with_objects`, but not all of them.

    Class by class, rarest first, as iterative stratification does (Sechidis et al., 2011).
    """
    chosen: set[str] = set()
    kept: set[str] = set()
    pictures = Counter(label for labels in groups.values() for label in labels)
    for label in sorted(pictures, key=lambda label: (pictures[label], label)):
        having = sorted(sha for sha, labels in groups.items() if label in labels)
        wanted = min(max(round(fraction * len(having)), 1), len(having) - 1)
        free = [sha for sha in having if sha not in chosen | kept]
        more = max(0, wanted - sum(sha in chosen for sha in having))
        chosen |= set(free[:more])
        kept |= set(free[more:])
    _balance(groups, chosen, kept)
    if not chosen or not kept:  # each class is on one picture alone
        first = min(groups)
        (chosen, kept) = ({first}, set(groups) - {first})
    for lacking, full in ((chosen, kept), (kept, chosen)):
        if not with_objects & lacking:
            moved = _least_missed(groups, with_objects & full, full)
            full ^= moved
            lacking ^= moved
    return chosen


def _least_missed(groups: dict[str, set[int]], having: set[str], full: set[str]) -> set[str]:
    """Of pictures with objects, the one whose side loses the fewest classes without it."""

    def lost(sha: str) -> int:
        return sum(not any(label in groups[o] for o in full - {sha}) for label in groups[sha])

    return {min(having, key=lambda sha: (lost(sha), sha))}


def _balance(groups: dict[str, set[int]], chosen: set[str], kept: set[str]) -> None:
    """Bring a class that is on one side alone to the other too.

    One picture moves, or two are exchanged, so that no side loses another class.
    """
    having: dict[int, set[str]] = defaultdict(set)
    for sha, labels in groups.items():
        for label in labels:
            having[label].add(sha)
    for label in sorted(having):
        for lacking, full in ((chosen, kept), (kept, chosen)):
            if len(having[label]) > 1 and not having[label] & lacking:
                exchanged = _exchange(groups, having, label, lacking, full)
                full ^= exchanged
                lacking ^= exchanged


def _exchange(
    groups: dict[str, set[int]],
    having: dict[int, set[str]],
    label: int,
    lacking: set[str],
    full: set[str],
) -> set[str]:
    """The pictures that change sides to bring a class to the side that lacks it.

    One picture with the class, and one in return if needed; empty if nothing helps.
    """
    for sha in sorted(having[label]):
        lost = [each for each in groups[sha] if not having[each] & full - {sha}]
        if not lost:
            return {sha}
        for other in sorted(having[lost[0]] & lacking):
            brings = set(lost) <= groups[other]
            rest = lacking - {other} | {sha}
            if brings and all(having[each] & rest for each in groups[other]):
                return {sha, other}
    return set()
