"""A split by content: the same pictures land on the same side on every machine."""

from collections import Counter, defaultdict
from dataclasses import replace

from ..config import BadInput
from .dataset import Picture, Split


def split_off(whole: Split, name: str, fraction: float) -> tuple[Split, Split]:
    """Split off about `fraction` of the pictures, and of those of each class, as a new split.

    A picture's side follows from the digest of its file and from what the others hold, not from
    names or order; equal files stay on one side. A class on two different pictures or more comes to
    be on both sides, where others do not forbid it, and boxes that count (no crowds) always are.
    Raises BadInput where one side would be empty, or without such a box.
    """
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in whole.pictures:
        groups[picture.sha256].append(picture)
    if len(groups) < 2:
        raise BadInput([f"data.{name}: train has too few pictures to split some off; give {name}"])
    counting = {sha for sha, own in groups.items() if any((~p.crowd).any() for p in own)}
    if len(counting) < 2:
        where = "one picture of train alone has" if counting else "no picture of train has"
        raise BadInput(
            [
                f"data.{name}: {where} boxes that count (no crowds), and a part that is split off "
                f"needs some as train does; annotate a second picture, or give {name}"
            ]
        )
    gone = _chosen({sha: _labels(own) for sha, own in groups.items()}, counting, fraction)
    return (
        replace(whole, pictures=tuple(p for p in whole.pictures if p.sha256 not in gone)),
        replace(whole, name=name, pictures=tuple(p for p in whole.pictures if p.sha256 in gone)),
    )


def take_off(whole: Split, name: str, chosen: set[str]) -> tuple[Split, Split] | None:
    """The same with the digests of the files that were chosen before; None where some are gone."""
    if not chosen or not chosen < {picture.sha256 for picture in whole.pictures}:
        return None
    return (
        replace(whole, pictures=tuple(p for p in whole.pictures if p.sha256 not in chosen)),
        replace(whole, name=name, pictures=tuple(p for p in whole.pictures if p.sha256 in chosen)),
    )


def _labels(pictures: list[Picture]) -> set[int]:
    """The classes on equal files; 0 stands for pictures without boxes."""
    return {int(label) for picture in pictures for label in picture.labels} or {0}


def _chosen(groups: dict[str, set[int]], counting: set[str], fraction: float) -> set[str]:
    """The files that are split off, some of `counting` and not all of them.

    Class by class, rarest first, as iterative stratification does (Sechidis et al., 2011).
    """
    gone: set[str] = set()
    kept: set[str] = set()
    pictures = Counter(label for labels in groups.values() for label in labels)
    for label in sorted(pictures, key=lambda label: (pictures[label], label)):
        having = sorted(sha for sha, labels in groups.items() if label in labels)
        wanted = min(max(round(fraction * len(having)), 1), len(having) - 1)
        free = [sha for sha in having if sha not in gone | kept]
        more = max(0, wanted - sum(sha in gone for sha in having))
        gone |= set(free[:more])
        kept |= set(free[more:])
    _swap(groups, gone, kept)
    if not gone or not kept:  # each class on one picture alone
        first = min(groups)
        (gone, kept) = ({first}, set(groups) - {first})
    for lacking, full in ((gone, kept), (kept, gone)):
        if not counting & lacking:
            moved = _moved(groups, counting & full, full)
            full ^= moved
            lacking ^= moved
    return gone


def _moved(groups: dict[str, set[int]], having: set[str], full: set[str]) -> set[str]:
    """Of pictures with boxes that count, the one whose side loses fewest classes without it."""

    def lost(sha: str) -> int:
        return sum(not any(label in groups[o] for o in full - {sha}) for label in groups[sha])

    return {min(having, key=lambda sha: (lost(sha), sha))}


def _swap(groups: dict[str, set[int]], gone: set[str], kept: set[str]) -> None:
    """Bring a class that rarer ones left on one side alone to the other too, by moving one picture,
    or by exchanging two, so that no side loses another class."""
    having: dict[int, set[str]] = defaultdict(set)
    for sha, labels in groups.items():
        for label in labels:
            having[label].add(sha)
    for label in sorted(having):
        for lacking, full in ((gone, kept), (kept, gone)):
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
    """The pictures that change sides: one with the class, and one for it where that is needed; none
    where nothing helps."""
    for sha in sorted(having[label]):
        lost = [own for own in groups[sha] if not having[own] & full - {sha}]
        if not lost:
            return {sha}
        for other in sorted(having[lost[0]] & lacking):
            brings = set(lost) <= groups[other]
            if brings and all(having[own] & (lacking - {other} | {sha}) for own in groups[other]):
                return {sha, other}
    return set()
