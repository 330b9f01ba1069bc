"""Every kind of finding: its code, how bad it is, its text, and how to fix it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Code:
    """One kind of finding. Codes are stable: scripts and `data.allow` name them."""

    severity: Severity
    """An error crashes a training, or silently changes what it learns or measures."""
    text: str
    """A noun phrase in the plural: it reads well alone and after a count."""
    fix: str
    """What a user can do about it."""
    allowed: str = ""
    """What happens at these places if the user allows the error; empty: it cannot be allowed."""

    def counted(self, count: int) -> str:
        """The text with the count in front, if it is more than one."""
        return f"{count} {self.text}" if count > 1 else self.text


LEFT_OUT, KEPT = "left out", "kept"


def _error(text: str, fix: str, allowed: str = "") -> Code:
    return Code("error", text, fix, allowed)


def _warning(text: str, fix: str) -> Code:
    return Code("warning", text, fix)


def _note(text: str) -> Code:
    return Code("note", text, "")


_FILES = {
    "file-missing": _error("files or folders that do not exist", "correct the path"),
    "file-unreadable": _error(
        "annotation files that cannot be read", "repair them, or export them again"
    ),
    "field-missing": _error(
        "entries without a field that they need",
        "add the field; the rest of the split is checked after that",
    ),
    "field-malformed": _error(
        "fields of the wrong type",
        "write ids as integers, flags as 0 or 1, numbers without quotes; the rest of the split is "
        "checked after that",
    ),
    "path-outside": _error(
        "file names that lead out of the data set's folder (absolute, .., a URL)",
        "put the files below one folder and name them relative to it",
        LEFT_OUT,
    ),
    "link-outside": _error(
        "pictures that are links to places outside the picture folder",
        "put the pictures themselves there, or give the folder that they lie in",
        KEPT,
    ),
    "place-ambiguous": _error(
        "names that lead to two different files or folders",
        "remove one, or name its folder (YOLO: path in data.yaml; else data.images)",
        "the first is taken",
    ),
    "path-gone": _warning(
        "data.yaml files with a path that is no folder: everything is looked for beside them",
        "correct the path",
    ),
    "yaml-leads-out": _warning(
        "places outside the folder of the data.yaml: they are read",
        "check that they are meant, if somebody else wrote the data.yaml",
    ),
    "split-empty": _error("splits without pictures", "list pictures, or leave the split out"),
    "split-without-boxes": _error("splits without boxes", "annotate it, or leave it out"),
    "split-twice": _error(
        "splits with exactly the pictures of another", "give it other pictures, or leave it out"
    ),
}

_IDS_AND_NAMES = {
    "image-id-twice": _error("repeated image ids", "give each image another id"),
    "annotation-id-twice": _error(
        "repeated annotation ids", "give each annotation another id", KEPT
    ),
    "category-id-twice": _error("repeated category ids", "give each category another id"),
    "category-name-twice": _error(
        "repeated category names", "merge the categories, or give each another name"
    ),
    "category-name-similar": _warning(
        "category names that differ only by case or spaces", "merge them, if they are one class"
    ),
    "category-differs": _error(
        "categories that another split gives another name", "use the same categories everywhere"
    ),
    "file-twice": _error(
        "repeated file names, or names that differ only by case", "list each picture once", KEPT
    ),
    "unknown-image": _error(
        "annotations of images that are not listed",
        "list the images, or delete the annotations",
        LEFT_OUT,
    ),
    "unknown-category": _error(
        "annotations of categories that are not listed",
        "list the categories (YOLO: names, from 0), or delete the annotations",
        LEFT_OUT,
    ),
}

_BOXES = {
    "box-malformed": _error(
        "boxes that are not 4 numbers",
        "write x, y, width, height (YOLO: class, x and y of the centre, width, height)",
        LEFT_OUT,
    ),
    "rows-of-another-task": _error(
        "rows with more numbers than a box, as for tracks, predictions or keypoints",
        "export boxes alone: class, x and y of the centre, width, height",
        "read as polygons",
    ),
    "box-not-finite": _error(
        "boxes with NaN, infinity or a number too large for any picture",
        "redraw or delete them",
        LEFT_OUT,
    ),
    "box-empty": _error("boxes of zero width or height", "redraw or delete them", LEFT_OUT),
    "box-negative": _error(
        "boxes of negative width or height", "give the smaller corner first", LEFT_OUT
    ),
    "box-outside": _error("boxes completely outside their picture", "delete them", LEFT_OUT),
    "box-mostly-outside": _error(
        "boxes with less than a fifth of their area inside their picture",
        "redraw or delete them",
        "clipped",
    ),
    "box-partly-outside": _warning(
        "boxes partly outside their picture: clipped for training", "redraw them"
    ),
    "boxes-normalised": _error(
        "boxes that look like fractions of the picture (all numbers at most 1), not pixels",
        "multiply by width and height",
        KEPT,
    ),
    "boxes-in-pixels": _error(
        "boxes that look like pixels, not fractions of the picture from 0 to 1",
        "divide by width and height",
    ),
    "boxes-are-corners": _error(
        "boxes that look like x1, y1, x2, y2, not x, y, width, height",
        "subtract the first corner from the second",
        KEPT,
    ),
    "box-twice": _warning(
        "repeated boxes, of one class on one picture: each counts in training and in AP",
        "delete the repeats",
    ),
    "box-vanishing": _warning(
        "objects with a side under 2 pixels on the canvas: hardly any model finds them",
        "raise model.image_size, or cut the pictures into tiles",
    ),
    "many-objects": _warning(
        "pictures with more objects than the model can detect: AP cannot reach 1",
        "set model.detections to at least the largest number of objects on a picture",
    ),
    "crowds": _note("crowd boxes: neither objects nor mistakes, in training and in evaluation"),
    "crowds-many": _error(
        "classes with so many crowd boxes that they would hardly be learned",
        "if each box is of one object, count them: data: {crowds: objects}; else annotate the "
        "objects one by one",
        "they stay crowds",
    ),
    "ignored": _warning(
        "boxes marked ignore: neither objects nor mistakes, in training and in evaluation",
        "write ignore as 0 for boxes that should count",
    ),
    "difficult": _note("boxes marked difficult: trained on and measured like all others"),
}

_PICTURES = {
    "pictures-elsewhere": _error(
        "splits with none of their pictures in the folder that is searched",
        "put them there, or give their folder: --images DIR of check and init, data.images in a "
        "YAML file, path in YOLO's data.yaml",
    ),
    "picture-missing": _error(
        "pictures that do not exist", "add them, or correct their names", LEFT_OUT
    ),
    "picture-empty": _error("picture files of 0 bytes", "copy them again", LEFT_OUT),
    "picture-truncated": _error("pictures that end too early", "copy them again", LEFT_OUT),
    "picture-unreadable": _error(
        "files that cannot be read as pictures",
        "replace them, for example by JPEG or PNG",
        LEFT_OUT,
    ),
    "picture-huge": _error(
        "pictures with too many pixels to decode safely", "scale or cut them", LEFT_OUT
    ),
    "picture-tiny": _error("pictures with a side under 10 pixels", "delete them", KEPT),
    "picture-extension": _warning(
        "file names whose suffix is of another format than the content", "rename them"
    ),
    "size-wrong": _error(
        "declared sizes that are not the picture's: the boxes may be for another resolution",
        "look at the boxes (`--out DIR`), then correct width and height",
        KEPT,
    ),
    "size-unturned": _error(
        "pictures declared with their size before EXIF rotates them: the boxes may be for that "
        "orientation too",
        "give size and boxes of the rotated picture, or allow it, which rotates the boxes too",
        "boxes are rotated",
    ),
    "picture-turned": _note(
        "pictures that EXIF rotates: their boxes are taken as drawn on the rotated picture"
    ),
    "pixels-not-finite": _error("pictures with NaN or infinity", "replace them", LEFT_OUT),
    "pixels-grey": _note("pictures in grey, palette or 1-bit mode: converted to RGB"),
    "pixels-deep": _warning(
        "pictures with more than 8 bits: scaled by their declared range",
        "look at them: `--out DIR`",
    ),
    "pixels-transparent": _warning(
        "pictures with transparency: laid on grey", "flatten them, if that is wrong"
    ),
    "pixels-cmyk": _warning(
        "CMYK pictures: converted by their profile, if they have one", "save them as RGB"
    ),
    "pixels-frames": _warning(
        "pictures with several frames: only the first is used", "save the frame that you mean alone"
    ),
    "unlabelled": _warning("pictures without a label file: they count as background", "label them"),
    "mostly-unlabelled": _error(
        "pictures without a label file, more than half of the split: they would count as "
        "background",
        "check where the label files lie",
        KEPT,
    ),
    "label-without-picture": _warning(
        "label files without a picture: they are not read", "add the pictures"
    ),
    "xml-of-other-picture": _warning(
        "xml files whose filename is another picture of the data set: the picture with the xml's "
        "name is taken",
        "look at the boxes (`--out DIR`), then rename the xml files or correct filename",
    ),
    "label-twice": _error(
        "pictures that differ only by suffix, and so have the same label file",
        "rename them, and give each a label file",
        KEPT,
    ),
    "picture-twice": _warning(
        "pictures with the content of another in the split: both count",
        "keep one, with all its boxes",
    ),
    "without-boxes": _note("pictures without boxes: they count as background"),
}

_SPLITS = {
    "same-picture-in-splits": _error(
        "pictures that are in another split too: figures come out too good",
        "keep each in one split",
        KEPT,
    ),
    "class-untrained": _error(
        "classes with boxes in val or test and none in train", "annotate some in train", KEPT
    ),
    "class-rare": _warning("classes with fewer than 10 boxes in train", "annotate more"),
    "class-unmeasured": _warning("classes without boxes in val: no AP", "annotate some in val"),
    "split-small": _warning(
        "splits with fewer pictures than a batch of 8", "add some, or lower batch_size"
    ),
}

CODES = {**_FILES, **_IDS_AND_NAMES, **_BOXES, **_PICTURES, **_SPLITS}
"""Every kind of finding by its code."""


def allowable() -> set[str]:
    """Codes of the errors that a user may allow: training can go on with them."""
    return {name for name, code in CODES.items() if code.allowed}
