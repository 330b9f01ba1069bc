"""Which file each listed picture is, and the findings for those without one."""

import filecmp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..findings import Findings, Place
from ..formats.file_names import Listing
from ..formats.folders import is_below, is_file, leads_out
from ..formats.records import Records


class _Folders:
    """The folders in which pictures may lie, with their links resolved."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._roots = {os.path.realpath(folder) for folder in folders}
        self._real: dict[str, str] = {}
        """Resolved folders of pictures, by their path."""

    def hold(self, path: str) -> bool:
        """Whether a file lies below one of the folders once all links are followed."""
        folder, base = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        path = f"{self._real[folder].rstrip('/')}/{base}"
        # Path.is_symlink raises for a name that is too long
        path = os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114
        return any(path == r or path.startswith(r.rstrip("/") + "/") for r in self._roots)

    def name(self, file: Path) -> bool:
        """Whether a path names a place below one of the folders, by any name of the folder."""
        if "\0" in str(file):
            return False
        return any(is_below(file, folder) for folder in self._folders) or self.hold(str(file))


@dataclass
class _Problems:
    """Positions of the images whose picture is missing or may not be read."""

    outside: list[int] = field(default_factory=list)
    linked: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    ambiguous: dict[int, str] = field(default_factory=dict)
    """The two files that a name leads to."""


def find_files(records: Records, findings: Findings) -> list[Path | None]:
    """The picture file of each image; None if there is none, or none that may be read."""
    files: list[Path | None] = []
    problems = _Problems()
    folders = _Folders(records.folders)
    listing = Listing(records.folders)
    for i, image in enumerate(records.images):
        given = records.files[i] if records.files else None
        path = None
        if leads_out(image.file_name) if given is None else not folders.name(given):
            problems.outside.append(i)
        elif paths := _paths(image.file_name, given, records.folders, listing):
            path = paths[0]
            if len(paths) > 1 and _differ(*paths[:2]):
                problems.ambiguous[i] = f"{path} and {paths[1]}"
            if not folders.hold(path):
                problems.linked.append(i)
                path = path if "link-outside" in findings.allow else None
        else:
            problems.missing.append(i)
        files.append(Path(path) if path else None)
    _report(records, findings, problems, listing)
    return files


def _paths(name: str, given: Path | None, folders: Sequence[Path], listing: Listing) -> list[str]:
    """The given file, or all files of a name in the folders.

    If there is none, the file whose name differs only in how its letters are composed.
    """
    places = [str(given)] if given else [f"{folder.absolute()}/{name}" for folder in folders]
    paths = [path for path in places if is_file(path)]
    other = None if paths or given else listing.spelt_otherwise(name)
    return [other] if other else paths


def _differ(one: str, other: str) -> bool:
    try:
        return not filecmp.cmp(one, other, shallow=False)
    except OSError:
        return True


def _report(records: Records, findings: Findings, problems: _Problems, listing: Listing) -> None:
    def place(i: int) -> Place:
        return Place(records.images[i].file_name, records.images[i].id)

    name, source = records.name, records.source
    hint = listing.hint([records.images[i].file_name for i in problems.outside])
    findings.add_at("path-outside", name, source, problems.outside, place, hint)
    findings.add_at("link-outside", name, source, problems.linked, place)
    findings.add_at(
        "place-ambiguous",
        name,
        source,
        list(problems.ambiguous),
        lambda i: replace(place(i), detail=problems.ambiguous[i]),
    )
    if problems.missing:
        _report_missing(records, findings, problems.missing, listing)


def _report_missing(
    records: Records, findings: Findings, missing: list[int], listing: Listing
) -> None:
    """Report missing pictures; one finding if the folder of all of a split seems wrong."""
    images = [records.images[i] for i in missing]
    near = [listing.near(image.file_name) for image in images]
    searched = " or ".join(str(folder) for folder in records.folders)

    def place(i: int) -> Place:
        detail = f"there is {near[i]}" if near[i] else ""
        return Place(images[i].file_name, images[i].id, detail=detail)

    is_named_well = all(
        not other or f"/{other}".endswith(f"/{image.file_name}")
        for image, other in zip(images, near, strict=True)
    )
    if len(missing) == len(records.images) > 1 and is_named_well:
        nowhere = f"no {images[0].file_name} in {searched}, for example"
        detail = next((f"there is {other}" for other in near if other), nowhere)
        findings.add("pictures-elsewhere", records.name, records.source, [Place(detail=detail)])
    else:
        hint = listing.hint([image.file_name for image in images])
        findings.add_at("picture-missing", records.name, searched, range(len(missing)), place, hint)
