"""Checks within and between splits: repeated pictures, leaks, classes and counts."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from ..dataset import Category
from ..findings import Findings, Place
from .columns import Columns
from .reading import SplitInput

RARE, BATCH = 10, 8
"""A class of train with fewer boxes is rare, a split with fewer pictures is small."""


def check_repeated_pictures(split: SplitInput, findings: Findings) -> None:
    """Report pictures of one content under several names."""
    first: dict[str, str] = {}
    repeated = []
    for image, facts in zip(split.records.images, split.facts, strict=False):
        if facts and not facts.problem:
            name = first.setdefault(facts.sha256, image.file_name)
            if name != image.file_name:  # else it is `file-twice`
                repeated.append(Place(image.file_name, image.id, detail=f"is {name}"))
    findings.add("picture-twice", split.records.name, split.records.source, repeated)


def check_between_splits(
    splits: dict[str, SplitInput], categories: tuple[Category, ...], findings: Findings
) -> None:
    """Report what only shows when splits are compared."""
    _check_repeated_splits(splits, findings)
    _check_leaks(splits, findings)
    _check_classes(splits, categories, findings)
    _check_counts(splits, findings)


def _check_repeated_splits(splits: dict[str, SplitInput], findings: Findings) -> None:
    for one, other in combinations(splits.values(), 2):
        same_folders = one.records.folders == other.records.folders
        if one.file_names == other.file_names and same_folders:
            place = Place(detail=f"the same pictures as {one.records.name}")
            findings.add("split-twice", other.records.name, other.records.source, [place])


def _check_leaks(splits: dict[str, SplitInput], findings: Findings) -> None:
    repeated = {finding.split for finding in findings.items if finding.code == "split-twice"}
    for one, other in combinations(splits.values(), 2):
        name, source = other.records.name, other.records.source
        if name not in repeated:
            findings.add("same-picture-in-splits", name, source, _leaks(one, other))


def _leaks(one: SplitInput, other: SplitInput) -> Iterator[Place]:
    names = {
        facts.sha256: image.file_name
        for image, facts in zip(one.records.images, one.facts, strict=False)
        if facts and not facts.problem
    }
    for image, facts in zip(other.records.images, other.facts, strict=False):
        if facts and facts.sha256 in names:
            detail = f"is {names[facts.sha256]} of {one.records.name}"
            yield Place(image.file_name, image.id, detail=detail)


def _check_classes(
    splits: dict[str, SplitInput], categories: tuple[Category, ...], findings: Findings
) -> None:
    counts = {name: _boxes_per_class(split.columns) for name, split in splits.items()}
    train = counts.get("train")
    if train is None:  # it could not be read: each class would be reported
        return

    def add(code: str, name: str, classes: list[Category]) -> None:
        places = [Place(detail=f"{c.name} ({counts[name][c.id]} boxes)") for c in classes]
        findings.add(code, name, splits[name].records.source, places)

    add("class-rare", "train", [c for c in categories if train[c.id] < RARE])
    for name, count in counts.items():
        if name != "train":
            add("class-untrained", name, [c for c in categories if count[c.id] and not train[c.id]])
        if name == "val":
            missing = [c for c in categories if train[c.id] and not count[c.id]]
            add("class-unmeasured", name, missing)


def _boxes_per_class(columns: Columns) -> Counter[int]:
    return Counter(columns.category[columns.sound & ~columns.crowd].tolist())


def _check_counts(splits: dict[str, SplitInput], findings: Findings) -> None:
    for name in ("train", "val"):
        if name in splits and len(splits[name].records.images) < BATCH:
            count = Place(detail=str(len(splits[name].records.images)))
            findings.add("split-small", name, splits[name].records.source, [count])
