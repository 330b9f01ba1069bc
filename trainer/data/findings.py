"""What can be wrong with a data set: every code, how bad it is, and how to mend it."""

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from ..config import BadInput
from ..config_errors import nearest
from ..text.escaping import printable

SHOWN = 10
"""Places of a finding that are listed; the rest is counted."""

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Code:
    """One kind of finding. Codes are stable: scripts and `data.allow` name them."""

    severity: Severity
    """An error crashes a training or silently changes what it learns or measures."""
    what: str
    mend: str
    allowed: str = ""
    """What becomes of the places where the user allows an error; empty: it cannot be allowed."""


LEFT_OUT, KEPT = "left out", "kept"


def _error(what: str, mend: str, allowed: str = "") -> Code:
    return Code("error", what, mend, allowed)


def _warning(what: str, mend: str) -> Code:
    return Code("warning", what, mend)


def _note(what: str) -> Code:
    return Code("note", what, "")


CODES = {
    # the annotation files
    "file-missing": _error("no such file or folder", "correct the path"),
    "file-unreadable": _error("cannot be read as annotations", "mend or export it again"),
    "field-missing": _error(
        "entries without a field they need", "add it; the rest of the split is checked then"
    ),
    "field-malformed": _error(
        "fields of the wrong type",
        "write ids as whole numbers, flags as 0 or 1, numbers without quotes; the rest is checked "
        "then",
    ),
    "path-outside": _error(
        "names that lead out of the data set's folder (absolute, .., a URL)",
        "put the files below one folder and name them relative to it",
        LEFT_OUT,
    ),
    "link-outside": _error(
        "pictures that are links out of the picture folder",
        "put the pictures themselves there, or give the folder that they lie in",
        KEPT,
    ),
    "place-ambiguous": _error(
        "two of one name, which differ, where one is looked for",
        "remove one, or name its folder (YOLO: path in data.yaml; else data.images)",
        "the first is taken",
    ),
    "path-gone": _warning(
        "the data.yaml's path is no folder: all is taken as beside the data.yaml",
        "correct the path",
    ),
    "yaml-leads-out": _warning(
        "the data.yaml names places outside its own folder: they are read",
        "look whether they are meant, if the data.yaml is not your own",
    ),
    "split-empty": _error("no pictures in the split", "list pictures, or leave the split out"),
    "split-without-boxes": _error("no boxes in the split", "annotate it, or leave it out"),
    "split-twice": _error("two splits are one and the same", "give a split of its own, or none"),
    # ids and names
    "image-id-twice": _error("image ids given twice", "number images without repeats"),
    "annotation-id-twice": _error(
        "annotation ids given twice", "number annotations without repeats", KEPT
    ),
    "category-id-twice": _error("category ids given twice", "number categories without repeats"),
    "category-name-twice": _error("categories of one name", "merge them, or name them apart"),
    "category-name-similar": _warning(
        "names that differ by case or spaces alone", "merge them, if they are one class"
    ),
    "category-differs": _error(
        "a category is named otherwise in another split", "use the same categories everywhere"
    ),
    "file-twice": _error(
        "file names given twice, or that differ by case alone", "list each picture once", KEPT
    ),
    "unknown-image": _error(
        "annotations of unknown images", "list the images, or delete them", LEFT_OUT
    ),
    "unknown-category": _error(
        "annotations of unknown categories",
        "list the categories (YOLO: names, from 0), or delete them",
        LEFT_OUT,
    ),
    # boxes
    "box-malformed": _error(
        "boxes that are not 4 numbers",
        "write x, y, width, height (YOLO: class, x and y of the centre, width, height)",
        LEFT_OUT,
    ),
    "rows-of-another-task": _error(
        "rows that begin with a box and go on, as of tracks, predictions or keypoints",
        "export boxes alone: class, x and y of the centre, width, height",
        "read as polygons",
    ),
    "box-not-finite": _error(
        "boxes with NaN, infinity or a number beyond any picture", "redraw or delete them", LEFT_OUT
    ),
    "box-empty": _error("boxes of no width or height", "redraw or delete them", LEFT_OUT),
    "box-negative": _error(
        "boxes of negative width or height", "give the smaller corner first", LEFT_OUT
    ),
    "box-outside": _error("boxes wholly outside their picture", "delete them", LEFT_OUT),
    "box-mostly-outside": _error(
        "boxes with less than a fifth inside their picture", "redraw or delete them", "clipped"
    ),
    "box-partly-outside": _warning(
        "boxes partly outside their picture: clipped for training", "redraw them"
    ),
    "boxes-normalised": _error(
        "boxes look like shares of the picture (all numbers at most 1), not pixels",
        "multiply by width and height",
        KEPT,
    ),
    "boxes-in-pixels": _error(
        "boxes look like pixels, not shares of the picture from 0 to 1",
        "divide by width and height",
    ),
    "boxes-are-corners": _error(
        "boxes look like x1, y1, x2, y2, not x, y, width, height",
        "subtract the first corner from the second",
        KEPT,
    ),
    "box-twice": _warning(
        "boxes given twice, of one class on one picture: each counts in training and in AP",
        "delete the second",
    ),
    "box-vanishing": _warning(
        "objects with a side under 2 pixels on the canvas: hardly any model finds them",
        "raise model.image_size, or cut the pictures into tiles",
    ),
    "many-objects": _warning(
        "pictures with more objects than a model finds, so that AP cannot come to 1",
        "set model.detections to more than the most objects of a picture",
    ),
    "crowds": _note("crowds: neither objects nor mistakes, in training and in evaluation"),
    "crowds-many": _error(
        "classes with so many crowds that they would hardly be learned",
        "where each box is of one object, count them: data: {crowds: objects}; else annotate the "
        "objects one by one",
        "they stay crowds",
    ),
    "ignored": _warning(
        "boxes marked ignore: neither objects nor mistakes, in training and in evaluation",
        "write ignore as 0 where one should count",
    ),
    "difficult": _note("boxes marked difficult: trained on and measured like all others"),
    # pictures
    "pictures-elsewhere": _error(
        "no picture of the split lies where it is looked for",
        "put them there, or give their folder: --images DIR of check and init, data.images in a "
        "YAML file, path in YOLO's data.yaml",
    ),
    "picture-missing": _error("no such picture", "add it, or correct its name", LEFT_OUT),
    "picture-empty": _error("picture files of no bytes", "copy them again", LEFT_OUT),
    "picture-truncated": _error("pictures that end too early", "copy them again", LEFT_OUT),
    "picture-unreadable": _error(
        "files that cannot be read as pictures", "replace them, by JPEG or PNG say", LEFT_OUT
    ),
    "picture-huge": _error(
        "pictures of more pixels than are safe to decode", "scale or cut them", LEFT_OUT
    ),
    "picture-tiny": _error("pictures of less than 10 pixels a side", "delete them", KEPT),
    "picture-extension": _warning("names that say another format than the content", "rename them"),
    "size-wrong": _error(
        "declared sizes that are not the picture's: boxes may be of another resolution",
        "correct width and height after looking at the boxes (`--out DIR`)",
        KEPT,
    ),
    "size-unturned": _error(
        "EXIF turns these pictures; their declared size, so their boxes, may be of the unturned "
        "pixels",
        "give size and boxes of the picture as seen, or allow it, which turns the boxes too",
        "boxes are turned",
    ),
    "picture-turned": _note("pictures turned upright by EXIF; boxes are taken as of the upright"),
    "pixels-not-finite": _error("pictures with NaN or infinity", "replace them", LEFT_OUT),
    "pixels-grey": _note("grey, palette or 1-bit pictures: converted to RGB"),
    "pixels-deep": _warning(
        "pictures of more than 8 bits: scaled by their declared range", "look at them: `--out DIR`"
    ),
    "pixels-transparent": _warning(
        "pictures with transparency: laid on grey", "flatten them, if that is wrong"
    ),
    "pixels-cmyk": _warning(
        "CMYK pictures: converted by their profile, if they have one", "save them as RGB"
    ),
    "pixels-frames": _warning("pictures of many frames: the first counts", "save it alone"),
    "unlabelled": _warning("pictures without a label file: they count as background", "label them"),
    "mostly-unlabelled": _error(
        "more than half of the pictures have no label file, and would count as background",
        "check where the label files lie",
        KEPT,
    ),
    "label-without-picture": _warning("label files without a picture: not read", "add the picture"),
    "label-twice": _error(
        "pictures that differ by suffix alone, and so have one label file",
        "name them apart, each with its own",
        KEPT,
    ),
    "picture-twice": _warning(
        "the same picture twice in a split: it counts as two", "keep one, with all its boxes"
    ),
    "without-boxes": _note("pictures without boxes: they count as background"),
    # between splits
    "same-picture-in-splits": _error(
        "the same picture in two splits: figures come out too good",
        "keep it in one of them",
        KEPT,
    ),
    "class-untrained": _error(
        "classes with boxes in val or test and none in train", "annotate some in train", KEPT
    ),
    "class-rare": _warning("classes with fewer than 10 boxes in train", "annotate more"),
    "class-unmeasured": _warning("classes without boxes in val: no AP", "annotate some in val"),
    "split-small": _warning("fewer pictures than a batch of 8", "add some, or lower batch_size"),
}


@dataclass(frozen=True)
class Place:
    """Where something is wrong; ids are the data set's own."""

    file: str = ""
    image: Any = None
    annotation: Any = None
    detail: str = ""

    def __str__(self) -> str:
        ids = (("annotation", self.annotation), ("image", self.image))
        where = " of ".join(f"{kind} {value}" for kind, value in ids if value is not None)
        where = f"{where} ({self.file})" if where and self.file else where or self.file
        return printable(": ".join(filter(None, [where, self.detail])))


def shown(value: Any) -> str:
    """Any value of a file in a message: cut short, however long it is or deep its lists are."""
    return reprlib.repr(value)


@dataclass(frozen=True)
class Finding:
    """Everything of one kind in one split."""

    code: str
    split: str
    source: str
    """The annotation file or folder."""
    count: int
    places: tuple[Place, ...]
    """The first of them, see SHOWN."""
    severity: Severity
    hint: str = ""
    """What all of them seem to have in common, and what to do."""

    @property
    def line(self) -> str:
        """In one line with the next step, as errors are told before a search."""
        code, more = CODES[self.code], self.count - len(self.places)
        listed = ", ".join(filter(None, map(str, self.places)))
        text = ": ".join(filter(None, [code.what, listed])) + (f" and {more} more" if more else "")
        text += f"; {printable(self.hint)}" if self.hint else ""
        step = code.mend + (f", or --allow {self.code}" if code.allowed else "")
        return f"data.{self.split}: {self.code}: {text}; {step}"


@dataclass
class Findings:
    """All that was found so far, and what the user allows."""

    allow: frozenset[str] = frozenset()
    found: list[Finding] = field(default_factory=list)

    def add(self, code: str, split: str, source: object, places: Iterable[Place]) -> None:
        """One finding with the first places and the count of all, if there are any."""
        every = iter(places)
        first = tuple(islice(every, SHOWN))
        if first:
            self._add(code, split, source, len(first) + sum(1 for _ in every), first)

    def add_at(
        self,
        code: str,
        split: str,
        source: object,
        indices: Sequence[int],
        place: Callable[[int], Place],
        hint: str = "",
    ) -> None:
        """The same for many: only the first indices are made into places."""
        first = tuple(place(int(i)) for i in indices[:SHOWN])
        if first:
            self._add(code, split, source, len(indices), first, hint)

    def _add(
        self,
        code: str,
        split: str,
        source: object,
        count: int,
        places: tuple[Place, ...],
        hint: str = "",
    ) -> None:
        severity = CODES[code].severity
        if code in self.allow:
            severity = "warning"
        self.found.append(Finding(code, split, str(source), count, places, severity, hint))

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.found if finding.severity == "error"]


def check_allowed(codes: Iterable[str]) -> frozenset[str]:
    """The codes that a user allows. Raises BadInput for one that is unknown or no allowable one."""
    errors = []
    for code in codes:
        if code not in CODES:
            errors.append(f"data.allow: {code}: no such code{nearest(code, sorted(allowable()))}")
        elif code not in allowable():
            errors.append(f"data.allow: {code}: cannot be allowed; {CODES[code].mend}")
    if errors:
        raise BadInput(errors)
    return frozenset(codes)


def allowable() -> set[str]:
    """Codes of errors with which a training can go on."""
    return {name for name, code in CODES.items() if code.allowed}
