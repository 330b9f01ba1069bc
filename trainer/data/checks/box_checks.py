"""Boxes against the real sizes of their pictures."""

import filecmp
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..findings import Findings, Place
from ..formats.file_names import Listing
from ..formats.folders import is_below, leads_out
from ..formats.records import ImageRecord, Records
from .pictures import Seen
from .validate import Columns, mark, show

LEAST_SIDE = 10
"""Pixels."""
LEAST_INSIDE = 0.2
"""Share of a box's area inside its picture below which the box is an error."""
ROUNDING = 1.0
"""Pixels that a box may reach out of its picture without a word: tools round, and count from 1."""
SUSPECT, EVIDENCE = 0.2, 4
"""Share of boxes out of their pictures, and least number of boxes, from which on a whole split is
suspected to hold corners."""


def check_pictures(
    records: Records, seen: list[Seen | None], columns: Columns, findings: Findings
) -> NDArray[np.float64]:
    """Check what was seen of each picture (None: no file) against what is declared.

    Returns the (n, 2) widths and heights as seen, NaN for pictures that cannot be used. Where the
    user allows it, boxes on unturned pixels are turned.
    """
    images = records.images
    there = [(i, s) for i, s in enumerate(seen) if s is not None]
    usable = [(i, s) for i, s in there if not s.problem]

    def add(code: str, found: Iterator[tuple[int, str]]) -> None:
        places = (Place(images[i].file_name, images[i].id, detail=text) for i, text in found)
        findings.add(code, records.name, records.source, places)

    for code in sorted({s.problem for _, s in there if s.problem}):
        add(code, ((i, s.detail) for i, s in there if s.problem == code))
    for code in sorted({code for _, s in usable for code in s.pixels}):
        add(code, ((i, "") for i, s in usable if code in s.pixels))
    add("picture-extension", ((i, text) for i, s in usable if (text := _misnamed(images[i], s))))
    add("picture-tiny", ((i, _by(s.upright)) for i, s in usable if min(s.upright) < LEAST_SIDE))
    unturned = {i for i, s in usable if _is_unturned(images[i], s)}
    add("size-unturned", ((i, _declared(images[i])) for i in sorted(unturned)))
    add(
        "size-wrong",
        ((i, text) for i, s in usable if i not in unturned and (text := _missized(images[i], s))),
    )
    add(
        "picture-turned",
        ((i, "") for i, s in usable if s.orientation != 1 and i not in unturned),
    )
    sizes = np.full((len(images), 2), np.nan)
    for i, s in usable:
        sizes[i] = s.upright
    for i in unturned:
        own = np.flatnonzero(columns.image == i)
        turning = seen[i]
        assert turning is not None
        columns.boxes[own] = turned(columns.boxes[own], turning)
    return sizes


def declared_sizes(records: Records) -> NDArray[np.float64]:
    """The (n, 2) widths and heights that the files declare, NaN for none, without any picture."""
    sizes = [(image.width, image.height) for image in records.images]
    return np.array([s if _are_sizes(s) else (np.nan, np.nan) for s in sizes], dtype=np.float64)


def check_boxes(
    records: Records, columns: Columns, sizes: NDArray[np.float64], findings: Findings
) -> None:
    """Check boxes against the sizes of their pictures; relative ones become pixels first."""
    own = sizes[columns.image]
    own[columns.image < 0] = np.nan
    slack = ROUNDING
    if records.relative:
        if _look_like_pixels(records, columns, findings):
            return
        if np.isnan(sizes).all():  # no picture was looked at: shares of a square of 1
            own, slack = np.ones_like(own), 0.01
        columns.boxes *= np.tile(own, 2)
    elif _look_normalised(records, columns, findings):
        return
    known = columns.sound & np.isfinite(own).all(axis=1)
    if _look_like_corners(records, columns, own, known, findings):
        return
    first = columns.boxes[:, :2]
    last = first + columns.boxes[:, 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = np.minimum(last, own) - np.maximum(first, 0)
        share = inside.clip(0).prod(axis=1) / columns.boxes[:, 2:].prod(axis=1)
        out = known & (inside <= 0).any(axis=1)
        beyond = ((first < -slack) | (last > own + slack)).any(axis=1)

    def detail(i: int) -> str:
        return f"{show(columns.boxes[i].tolist())} in {_by(own[i])}"

    mostly = known & ~out & (share < LEAST_INSIDE)
    partly = known & ~out & ~mostly & beyond
    mark("box-outside", records, columns, findings, out, detail)
    mark("box-mostly-outside", records, columns, findings, mostly, detail, drop=False)
    mark("box-partly-outside", records, columns, findings, partly, detail, drop=False)
    again = _given_before(columns)
    mark("box-twice", records, columns, findings, again, detail, drop=False)


def _given_before(columns: Columns) -> NDArray[np.bool_]:
    """Which sound boxes repeat one before them: its picture, class and four numbers."""
    rows = np.flatnonzero(columns.sound & ~columns.crowd)
    keys = np.column_stack([columns.image, columns.category, columns.boxes])[rows]
    order = np.lexsort(keys.T)  # stable: of equals the first stays first
    equal = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    found = np.zeros(len(columns.sound), dtype=np.bool_)
    found[rows[order[1:][equal]]] = True
    return found


def locate(records: Records, findings: Findings) -> list[Path | None]:
    """The picture file of each image; None where there is none, or none that may be read."""
    found: list[Path | None] = []
    outside: list[int] = []
    linked: list[int] = []
    missing: list[int] = []
    twice: dict[int, str] = {}
    roots = {os.path.realpath(folder) for folder in records.folders}
    real: dict[str, str] = {}
    listing = Listing(records.folders)

    def is_within(path: str) -> bool:
        folder, base = os.path.split(path)
        if folder not in real:
            real[folder] = os.path.realpath(folder)
        path = os.path.join(real[folder], base)
        path = os.path.realpath(path) if os.path.islink(path) else path
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)

    def is_named_within(file: Path) -> bool:
        if "\0" in str(file):
            return False
        below = any(is_below(file, folder) for folder in records.folders)
        return below or is_within(str(file))  # by another name of the folder

    for i, image in enumerate(records.images):
        known = records.files[i] if records.files else None
        path = None
        if leads_out(image.file_name) if known is None else not is_named_within(known):
            outside.append(i)
        elif paths := _paths(image.file_name, known, records.folders, listing):
            path = paths[0]
            if len(paths) > 1 and _differ(*paths[:2]):
                twice[i] = f"{path} and {paths[1]}"
            if not is_within(path):
                linked.append(i)
                path = path if "link-outside" in findings.allow else None
        else:
            missing.append(i)
        found.append(Path(path) if path else None)
    places = _places_of(records)
    hint = listing.hint([records.images[i].file_name for i in outside])
    findings.add_at("path-outside", records.name, records.source, outside, places, hint)
    findings.add_at("link-outside", records.name, records.source, linked, places)
    findings.add_at(
        "place-ambiguous",
        records.name,
        records.source,
        list(twice),
        lambda i: replace(places(i), detail=twice[i]),
    )
    if missing:
        _tell_missing(records, findings, missing, listing)
    return found


def _paths(name: str, known: Path | None, folders: Sequence[Path], listing: Listing) -> list[str]:
    """The file that is known, or all of that name in the folders; where none is, the one whose
    name is spelt otherwise."""
    places = [str(known)] if known else [f"{folder.absolute()}/{name}" for folder in folders]
    paths = [path for path in places if os.path.isfile(path)]
    other = None if paths or known else listing.spelt_otherwise(name)
    return [other] if other else paths


def _differ(one: str, other: str) -> bool:
    try:
        return not filecmp.cmp(one, other, shallow=False)
    except OSError:
        return True


def _tell_missing(
    records: Records, findings: Findings, missing: list[int], listing: Listing
) -> None:
    """That these pictures are nowhere, or, of all of a split, that their folder is another."""
    images = [records.images[i] for i in missing]
    near = [listing.near(image.file_name) for image in images]
    looked = " or ".join(str(folder) for folder in records.folders)

    def place(i: int) -> Place:
        detail = f"there is {near[i]}" if near[i] else ""
        return Place(images[i].file_name, images[i].id, detail=detail)

    is_named_well = all(
        not other or f"/{other}".endswith(f"/{image.file_name}")
        for image, other in zip(images, near, strict=True)
    )
    if len(missing) == len(records.images) > 1 and is_named_well:
        nowhere = f"no {images[0].file_name} in {looked}, say"
        detail = next((f"there is {other}" for other in near if other), nowhere)
        findings.add("pictures-elsewhere", records.name, records.source, [Place(detail=detail)])
    else:
        hint = listing.hint([image.file_name for image in images])
        findings.add_at("picture-missing", records.name, looked, range(len(missing)), place, hint)


def turned(boxes: NDArray[np.float64], seen: Seen) -> NDArray[np.float64]:
    """Boxes (m, 4) on a picture's stored pixels as they lie on it upright."""
    x1, y1 = boxes[:, 0], boxes[:, 1]
    x2, y2 = x1 + boxes[:, 2], y1 + boxes[:, 3]
    width, height = seen.stored
    if seen.orientation in (2, 3, 7, 8):  # mirrored left to right, as stored
        x1, x2 = width - x2, width - x1
    if seen.orientation in (3, 4, 6, 7):  # and top to bottom
        y1, y2 = height - y2, height - y1
    if seen.orientation >= 5:  # then x and y change places
        x1, y1, x2, y2 = y1, x1, y2, x2
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def _places_of(records: Records) -> Callable[[int], Place]:
    return lambda i: Place(records.images[i].file_name, records.images[i].id)


def _misnamed(image: ImageRecord, seen: Seen) -> str:
    suffix = os.path.splitext(image.file_name)[1].lower()
    said = Image.registered_extensions().get(suffix)
    real = "JPEG" if seen.format == "MPO" else seen.format
    if said == "MPO":
        said = "JPEG"
    return f"is {real}" if said != real else ""


def _missized(image: ImageRecord, seen: Seen) -> str:
    declared = (image.width, image.height)
    if declared == (None, None) or declared == seen.upright:
        return ""
    swapped = " (swapped)" if declared == seen.upright[::-1] else ""
    return f"{_declared(image)}, is {_by(seen.upright)}{swapped}"


def _is_unturned(image: ImageRecord, seen: Seen) -> bool:
    declared = (image.width, image.height)
    return seen.orientation >= 5 and declared == seen.stored != seen.upright


def _declared(image: ImageRecord) -> str:
    return f"declared {image.width} x {image.height}"


def _by(size: Sequence[float] | NDArray[np.float64]) -> str:
    return f"{size[0]:g} x {size[1]:g}"


def _are_sizes(values: tuple[object, object]) -> bool:
    return all(isinstance(v, int | float) and 0 < v < 2**31 for v in values)


def _sound_boxes(columns: Columns) -> NDArray[np.float64]:
    return columns.boxes[columns.sound]


def _look_normalised(records: Records, columns: Columns, findings: Findings) -> bool:
    boxes = _sound_boxes(columns)
    small = np.all(np.abs(boxes) <= 1, axis=1)
    most = small.sum() > 0.9 * len(boxes)
    return _suspect("boxes-normalised", records, findings, boxes, small, most)


def _look_like_pixels(records: Records, columns: Columns, findings: Findings) -> bool:
    boxes = _sound_boxes(columns)
    large = np.any(np.abs(boxes) > 2, axis=1)
    most = large.sum() > 0.5 * len(boxes)
    return _suspect("boxes-in-pixels", records, findings, boxes, large, most)


def _look_like_corners(
    records: Records,
    columns: Columns,
    own: NDArray[np.float64],
    known: NDArray[np.bool_],
    findings: Findings,
) -> bool:
    """Many boxes leave their pictures, yet all would lie within as x1, y1, x2, y2."""
    boxes, sizes = columns.boxes[known], own[known]
    out = np.any(boxes[:, :2] + boxes[:, 2:] > sizes + ROUNDING, axis=1)
    corners = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sizes + ROUNDING)
    suspect = len(boxes) >= EVIDENCE and out.mean() >= SUSPECT and corners.all(axis=1).mean() > 0.99
    return _suspect("boxes-are-corners", records, findings, boxes, out, bool(suspect))


def _suspect(
    code: str,
    records: Records,
    findings: Findings,
    boxes: NDArray[np.float64],
    which: NDArray[np.bool_],
    suspect: bool,
) -> bool:
    if not len(boxes) or not suspect:
        return False
    text = f"{int(which.sum())} of {len(boxes)} boxes, as {show(boxes[which][0].tolist())}"
    findings.add(code, records.name, records.source, [Place(detail=text)])
    return code not in findings.allow
