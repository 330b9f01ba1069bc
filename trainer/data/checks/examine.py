"""A data set read and examined whole: what is in it, and everything that is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ...config import Data, Model
from ..dataset import Category, Picture, Split
from ..findings import CODES, Finding, Findings, Place, check_allowed
from ..formats.coco import read_coco
from ..formats.file_names import composed
from ..formats.records import Records
from ..formats.voc import annotations_of, read_voc, voc_classes
from ..formats.yolo import CLASS_LIST, read_yolo
from .box_checks import check_boxes, check_pictures, declared_sizes, locate
from .pictures import Seen, see
from .undetectable import check_unseen
from .validate import Columns, read_columns

SPLIT_NAMES = ("train", "val", "test")
FORMATS = {".json": "COCO", ".yaml": "YOLO", ".yml": "YOLO", ".txt": "VOC"}
"""By an annotation file's suffix; others are COCO, and folders VOC."""
RARE, BATCH = 10, 8
"""Boxes of a class, and pictures, below which train is told of."""


@dataclass(frozen=True)
class Examined:
    """What came of it."""

    format: str
    findings: tuple[Finding, ...]
    counts: dict[str, dict[str, int]]
    """Pictures and boxes of each split, as listed."""
    categories: tuple[Category, ...]
    splits: dict[str, Split]
    """What can be used, errors left aside; empty where no picture was looked at."""
    notes: tuple[str, ...]
    """What was dropped or made up, a line each."""

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]


@dataclass
class _Part:
    """One split on its way."""

    records: Records
    columns: Columns
    files: list[Path | None] = field(default_factory=list)
    seen: list[Seen | None] = field(default_factory=list)


def examine(
    data: Data,
    cache: Path,
    *,
    pictures: bool = True,
    step: Callable[[int, int], None] = lambda done, of: None,
    model: Model | None = None,
) -> Examined:
    """Read a data set and check it, also for what a `model` would not see of it; with `pictures`,
    every one is decoded.

    `step` is told how many more pictures are done, and how many there are. Raises BadInput only
    where `data.allow` names what cannot be allowed.
    """
    findings = Findings(check_allowed(data.allow or ()))
    notes: list[str] = []
    parts = _read(data, findings)
    categories = _categories(parts, notes, findings)
    if pictures:
        _look(parts, cache, step, findings)
    for part in parts.values():
        if pictures:
            sizes = check_pictures(part.records, part.seen, part.columns, findings)
        else:
            sizes = declared_sizes(part.records)
        check_boxes(part.records, part.columns, sizes, findings)
        if model is not None:
            check_unseen(part.records, part.columns, sizes, model, findings)
        _check_repeats(part, findings)
    _check_twice(parts, findings)
    _check_leaks(parts, findings)
    _check_classes(parts, categories, findings)
    _check_counts(parts, findings)
    return Examined(
        format=format_of(data.train),
        findings=tuple(sorted(findings.found, key=lambda f: SPLIT_NAMES.index(f.split))),
        counts={
            name: {"pictures": len(p.records.images), "boxes": len(p.records.boxes)}
            for name, p in parts.items()
        },
        categories=categories,
        splits={n: _split(p, categories) for n, p in parts.items()} if pictures else {},
        notes=(*notes, *_said(findings)),
    )


# -- reading --------------------------------------------------------------------------------------


def _read(data: Data, findings: Findings) -> dict[str, _Part]:
    """Each split's records and columns; of what cannot be read there are findings alone."""
    sources = {name: file for name in SPLIT_NAMES if (file := getattr(data, name)) is not None}
    for name, source in sources.items():
        if not source.exists():
            findings.add("file-missing", name, source, [Place(str(source))])
    sources = {name: source for name, source in sources.items() if source.exists()}
    classes: list[str] = []
    if format_of(data.train) == "VOC":
        classes = voc_classes([file for file in sources.values() if format_of(file) == "VOC"])
    found = {}
    for name, source in sources.items():
        records = Records(name, source, format_of(source), _image_folders(data, name))
        if _read_format(records, classes, findings):
            columns = read_columns(records, findings, data.crowds)
            if columns is not None:
                found[name] = _Part(records, columns)
    return found


def _read_format(records: Records, classes: list[str], findings: Findings) -> bool:
    if records.format == "COCO":
        return read_coco(records, findings)
    if records.format == "YOLO":
        return read_yolo(records, findings)
    return read_voc(records, findings, classes)


def format_of(source: Path) -> str:
    """COCO, YOLO or VOC, by the name of what a split's annotations are in."""
    if source.name == CLASS_LIST:
        return "YOLO"
    return "VOC" if source.is_dir() else FORMATS.get(source.suffix.lower(), "COCO")


def _image_folders(data: Data, name: str) -> list[Path]:
    """Where the pictures of a split may lie, in the order to look."""
    images = data.images.get(name) if isinstance(data.images, dict) else data.images  # type: ignore[call-overload]
    if images is not None:
        return [images]
    source: Path = getattr(data, name)
    if source.is_dir():
        return [source, source.parent / "JPEGImages", source.parent / "images"]
    if format_of(source) == "VOC":
        annotations = annotations_of(source)
        return [annotations.parent / "JPEGImages", annotations.parent / "images", annotations]
    return [source.parent, source.parent / "images"]


def _categories(
    parts: dict[str, _Part], notes: list[str], findings: Findings
) -> tuple[Category, ...]:
    """The classes of all splits by id, without Roboflow's unused root category."""
    found: dict[int, str] = {}
    used: set[int] = set()
    supers = set()
    for name, part in parts.items():
        differing = []
        for category in part.records.categories:
            known = found.setdefault(category.id, category.name)
            if composed(known) != composed(category.name):
                text = f"category {category.id} is {category.name!r} here and {known!r} elsewhere"
                differing.append(Place(detail=text))
            if category.supercategory != category.name:  # some tools write the name twice
                supers.add(category.supercategory)
        findings.add("category-differs", name, part.records.source, differing)
        used |= set(part.columns.category.tolist())
    roots = [i for i, name in found.items() if i not in used and name in supers]
    for root in roots:
        notes.append(f"category {root} ({found[root]}) is a root without boxes: dropped")
    return tuple(Category(i, found[i]) for i in sorted(found) if i not in roots)


def _look(
    parts: dict[str, _Part], cache: Path, step: Callable[[int, int], None], findings: Findings
) -> None:
    for part in parts.values():
        part.files = locate(part.records, findings)
    files = sorted({file for part in parts.values() for file in part.files if file})
    seen = dict(zip(files, see(files, cache, lambda done: step(done, len(files))), strict=True))
    for part in parts.values():
        part.seen = [seen[file] if file else None for file in part.files]


def _check_repeats(part: _Part, findings: Findings) -> None:
    """Pictures of one content under several names."""
    first: dict[str, str] = {}
    again = []
    for image, seen in zip(part.records.images, part.seen, strict=False):
        if seen and not seen.problem:
            name = first.setdefault(seen.sha256, image.file_name)
            if name != image.file_name:  # else `file-twice`
                again.append(Place(image.file_name, image.id, detail=f"is {name}"))
    findings.add("picture-twice", part.records.name, part.records.source, again)


# -- between splits -------------------------------------------------------------------------------


def _check_twice(parts: dict[str, _Part], findings: Findings) -> None:
    for one, other in combinations(parts.values(), 2):
        if _names(one) == _names(other) and one.records.folders == other.records.folders:
            place = Place(detail=f"the same pictures as {one.records.name}")
            findings.add("split-twice", other.records.name, other.records.source, [place])


def _names(part: _Part) -> list[Any]:
    return [image.file_name for image in part.records.images]


def _check_leaks(parts: dict[str, _Part], findings: Findings) -> None:
    twice = {finding.split for finding in findings.found if finding.code == "split-twice"}
    for one, other in combinations(parts.values(), 2):
        if other.records.name not in twice:
            findings.add(
                "same-picture-in-splits",
                other.records.name,
                other.records.source,
                _leaks(one, other),
            )


def _leaks(one: _Part, other: _Part) -> Iterator[Place]:
    there = {
        seen.sha256: image.file_name
        for image, seen in zip(one.records.images, one.seen, strict=False)
        if seen and not seen.problem
    }
    for image, seen in zip(other.records.images, other.seen, strict=False):
        if seen and seen.sha256 in there:
            detail = f"is {there[seen.sha256]} of {one.records.name}"
            yield Place(image.file_name, image.id, detail=detail)


def _check_classes(
    parts: dict[str, _Part], categories: tuple[Category, ...], findings: Findings
) -> None:
    counts = {name: _boxes_a_class(part.columns) for name, part in parts.items()}
    train = counts.get("train")
    if train is None:  # unread; else this would be said of every class
        return

    def add(code: str, name: str, classes: list[Category]) -> None:
        places = [Place(detail=f"{c.name} ({counts[name][c.id]} boxes)") for c in classes]
        findings.add(code, name, parts[name].records.source, places)

    add("class-rare", "train", [c for c in categories if train[c.id] < RARE])
    for name, own in counts.items():
        if name != "train":
            add("class-untrained", name, [c for c in categories if own[c.id] and not train[c.id]])
        if name == "val":
            add("class-unmeasured", name, [c for c in categories if train[c.id] and not own[c.id]])


def _boxes_a_class(columns: Columns) -> Counter[int]:
    return Counter(columns.category[columns.sound & ~columns.crowd].tolist())


def _check_counts(parts: dict[str, _Part], findings: Findings) -> None:
    for name in ("train", "val"):
        if name in parts and len(parts[name].records.images) < BATCH:
            count = Place(detail=str(len(parts[name].records.images)))
            findings.add("split-small", name, parts[name].records.source, [count])


# -- what comes out -------------------------------------------------------------------------------


def _split(part: _Part, categories: tuple[Category, ...]) -> Split:
    """The pictures that can be used, each with its sound boxes."""
    columns = part.columns
    kept = np.flatnonzero(columns.sound)
    kept = kept[np.argsort(columns.image[kept], kind="stable")]
    starts = np.searchsorted(columns.image[kept], np.arange(len(part.records.images) + 1))
    ids = np.array([category.id for category in categories], dtype=np.int64)
    labels = np.searchsorted(ids, columns.category[kept]) + 1
    pictures = []
    for i, (image, file, seen) in enumerate(
        zip(part.records.images, part.files, part.seen, strict=True)
    ):
        if file is None or seen is None or seen.problem:
            continue
        own = slice(starts[i], starts[i + 1])
        width, height = seen.upright
        boxes, areas = columns.boxes[kept[own]], columns.areas[kept[own]]
        pictures.append(
            Picture(
                id=image.id,
                file=file,
                width=width,
                height=height,
                sha256=seen.sha256,
                boxes=boxes,
                areas=np.where(np.isnan(areas), boxes[:, 2:].prod(axis=1), areas),
                labels=labels[own].astype(np.int64),
                crowd=columns.crowd[kept[own]],
            )
        )
    return Split(part.records.name, tuple(pictures), categories)


def _said(findings: Findings) -> Iterator[str]:
    """A line for each error that the user allows, one for all warnings."""
    warnings: Counter[str] = Counter()
    for finding in findings.found:
        code = CODES[finding.code]
        if code.severity == "error" and finding.severity == "warning":
            yield f"data.{finding.split}: {finding.count} {code.what}: {code.allowed}, as allowed"
        elif finding.severity == "warning":
            warnings[finding.code] += finding.count
    if warnings:
        listed = ", ".join(f"{count} {code}" for code, count in warnings.items())
        yield f"data: warnings ({listed}); `unfreeze check` says more"
