"""Reads a data set and checks all of it: what is in it, and everything that is wrong with it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...config import Data, Model
from ..dataset import SPLIT_NAMES, Category, Picture, Split
from ..finding_messages import CODES
from ..findings import Finding, Findings, check_allowed
from .box_checks import check_boxes
from .decoding import inspect
from .picture_checks import check_pictures, declared_sizes
from .picture_files import find_files
from .reading import SplitInput, format_of, merge_categories, read_splits
from .split_checks import check_between_splits, check_repeated_pictures
from .undetectable import check_undetectable


@dataclass(frozen=True)
class Examined:
    """A data set that was checked."""

    format: str
    findings: tuple[Finding, ...]
    counts: dict[str, dict[str, int]]
    """Number of pictures and boxes of each split, as listed."""
    categories: tuple[Category, ...]
    splits: dict[str, Split]
    """What can be used, without what has errors; empty if no picture was decoded."""
    notes: tuple[str, ...]
    """What was dropped or added, one line each."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a training."""
        return [finding for finding in self.findings if finding.severity == "error"]


def examine(
    data: Data,
    cache: Path,
    *,
    pictures: bool = True,
    step: Callable[[int, int], None] = lambda done, of: None,
    model: Model | None = None,
) -> Examined:
    """Read a data set and check it.

    Args:
        data: Where it lies.
        cache: The folder where facts of decoded pictures are kept.
        pictures: Whether every picture is decoded.
        step: Called with how many more pictures are done, and how many there are.
        model: If given, objects that this model cannot detect are reported too.

    Raises:
        InputError: `data.allow` names a code that cannot be allowed. Nothing else is raised.
    """
    findings = Findings(check_allowed(data.allow or ()))
    notes: list[str] = []
    inputs = read_splits(data, findings)
    categories = merge_categories(inputs, notes, findings)
    if pictures:
        _decode(inputs, cache, step, findings)
    for split in inputs.values():
        if pictures:
            sizes = check_pictures(split.records, split.facts, split.columns, findings)
        else:
            sizes = declared_sizes(split.records)
        check_boxes(split.records, split.columns, sizes, findings)
        if model is not None:
            check_undetectable(split.records, split.columns, sizes, model, findings)
        check_repeated_pictures(split, findings)
    check_between_splits(inputs, categories, findings)
    return Examined(
        format=format_of(data.train),
        findings=tuple(sorted(findings.items, key=lambda f: SPLIT_NAMES.index(f.split))),
        counts={
            name: {"pictures": len(s.records.images), "boxes": len(s.records.boxes)}
            for name, s in inputs.items()
        },
        categories=categories,
        splits={n: _to_split(s, categories) for n, s in inputs.items()} if pictures else {},
        notes=(*notes, *_finding_notes(findings)),
    )


def _decode(
    inputs: dict[str, SplitInput],
    cache: Path,
    step: Callable[[int, int], None],
    findings: Findings,
) -> None:
    """Decode the pictures of all splits, each file once."""
    for split in inputs.values():
        split.files = find_files(split.records, findings)
    files = sorted({file for split in inputs.values() for file in split.files if file})
    facts = inspect(files, cache, lambda done: step(done, len(files)))
    by_file = dict(zip(files, facts, strict=True))
    for split in inputs.values():
        split.facts = [by_file[file] if file else None for file in split.files]


def _to_split(split: SplitInput, categories: tuple[Category, ...]) -> Split:
    """The pictures that can be used, each with its sound boxes."""
    columns = split.columns
    kept = np.flatnonzero(columns.sound)
    kept = kept[np.argsort(columns.image[kept], kind="stable")]
    starts = np.searchsorted(columns.image[kept], np.arange(len(split.records.images) + 1))
    ids = np.array([category.id for category in categories], dtype=np.int64)
    labels = np.searchsorted(ids, columns.category[kept]) + 1
    pictures = []
    for i, (image, file, facts) in enumerate(
        zip(split.records.images, split.files, split.facts, strict=True)
    ):
        if file is None or facts is None or facts.problem:
            continue
        rows = slice(starts[i], starts[i + 1])
        width, height = facts.upright
        boxes, areas = columns.boxes[kept[rows]], columns.areas[kept[rows]]
        pictures.append(
            Picture(
                id=image.id,
                file=file,
                width=width,
                height=height,
                sha256=facts.sha256,
                boxes=boxes,
                areas=np.where(np.isnan(areas), boxes[:, 2:].prod(axis=1), areas),
                labels=labels[rows].astype(np.int64),
                crowd=columns.crowd[kept[rows]],
            )
        )
    return Split(split.records.name, tuple(pictures), categories)


def _finding_notes(findings: Findings) -> Iterator[str]:
    """A line for each error that the user allows, and one for all warnings."""
    warnings: Counter[str] = Counter()
    for finding in findings.items:
        code = CODES[finding.code]
        if code.severity == "error" and finding.severity == "warning":
            text = code.counted(finding.count)
            yield f"data.{finding.split}: {text}: {code.allowed}, as allowed"
        elif finding.severity == "warning":
            warnings[finding.code] += finding.count
    if warnings:
        listed = ", ".join(f"{count} {code}" for code, count in warnings.items())
        yield f"data: warnings ({listed}); `unfreeze check` says more"
