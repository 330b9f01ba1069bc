"""What is wrong with a COCO file, found before anything is trained on it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

SHOWN = 10
"""Findings of one kind that are listed; the rest is counted."""

NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""Fields that each item of COCO's lists must have."""


@dataclass
class Findings:
    """Errors, one line a kind: any of them stops a search."""

    errors: list[str] = field(default_factory=list)

    def add(self, kind: str, places: Iterable[str]) -> None:
        """One error of this kind, with the first places and the count of all."""
        found = list(places)
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            self.errors.append(f"{kind}: {', '.join(found[:SHOWN])}{more}")


def check_coco(path: str, content: dict[str, Any], folders: list[Path]) -> Findings:
    """Check one COCO file whose three lists are there; `path` names the split in messages."""
    findings = Findings()
    images, annotations = content["images"], content["annotations"]
    if not images:
        findings.errors.append(f"{path}: the split is empty: it lists no images")
        return findings
    for kind, wanted in NEEDED.items():
        findings.add(
            f"{path}: {kind} without {' or '.join(wanted)}",
            (
                f"number {i}"
                for i, item in enumerate(content[kind])
                if not isinstance(item, dict) or not item.keys() >= set(wanted)
            ),
        )
    if findings.errors:
        return findings
    _check_images(path, images, folders, findings)
    _check_annotations(path, content, findings)
    if not annotations:
        findings.errors.append(f"{path}: the split has no boxes")
    return findings


def _check_images(
    path: str, images: list[dict[str, Any]], folders: list[Path], findings: Findings
) -> None:
    names = [str(image["file_name"]) for image in images]
    findings.add(
        f"{path}: file names that lead out of the picture folder",
        (name for name in names if Path(name).is_absolute() or ".." in Path(name).parts),
    )
    findings.add(
        f"{path}: no such picture in {' or '.join(str(d) for d in folders)}",
        (name for name in names if not any((d / name).is_file() for d in folders)),
    )
    findings.add(f"{path}: image ids given twice", _twice(image["id"] for image in images))


def _check_annotations(path: str, content: dict[str, Any], findings: Findings) -> None:
    annotations = content["annotations"]
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    ids = [a.get("id", i) for i, a in enumerate(annotations)]
    findings.add(
        f"{path}: annotation ids given twice", _twice(a["id"] for a in annotations if "id" in a)
    )
    findings.add(
        f"{path}: annotations of unknown images",
        (
            f"{i} (image {a['image_id']})"
            for i, a in zip(ids, annotations, strict=True)
            if a["image_id"] not in images
        ),
    )
    findings.add(
        f"{path}: annotations of unknown categories",
        (
            f"{i} (category {a['category_id']})"
            for i, a in zip(ids, annotations, strict=True)
            if a["category_id"] not in categories
        ),
    )
    findings.add(
        f"{path}: boxes that are not x, y, width, height with a width and height above 0",
        (
            f"{i} {a['bbox']}"
            for i, a in zip(ids, annotations, strict=True)
            if not _is_box(a["bbox"])
        ),
    )


def _is_box(box: Any) -> bool:
    numbers = (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, int | float) and isfinite(v) for v in box)
    )
    return numbers and box[2] > 0 and box[3] > 0


def _twice(ids: Iterable[Any]) -> list[str]:
    seen: set[Any] = set()
    return [str(i) for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
