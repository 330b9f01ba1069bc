"""Annotated pictures in memory: what every format becomes."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Category:
    """A class, with the id and the name that the data set gives it."""

    id: int
    name: str


@dataclass(frozen=True)
class Picture:
    """One picture and its boxes. Width and height are those after EXIF rotation."""

    id: int
    """As in the data set."""
    file: Path
    width: int
    height: int
    sha256: str
    """Of the file's bytes."""
    boxes: NDArray[np.float64]
    """(n, 4) x, y, width, height in pixels of this picture."""
    areas: NDArray[np.float64]
    """(n,) in square pixels: the data set's (COCO: of the segmentations), else those of the boxes.
    Evaluation divides objects into small, medium and large by them."""
    labels: NDArray[np.int64]
    """(n,) positions of the categories in `Split.categories`, counted from 1."""
    crowd: NDArray[np.bool_]
    """(n,) whether the box is a crowd or marked `ignore`. In training and evaluation such a box is
    no object, and a detection there is no mistake."""


@dataclass(frozen=True)
class Split:
    """The pictures of train, val or test."""

    name: str
    pictures: tuple[Picture, ...]
    categories: tuple[Category, ...]

    @cached_property
    def digest(self) -> str:
        """Identity of pictures, boxes and classes, wherever the files lie."""
        total = hashlib.sha256()
        for picture in self.pictures:
            total.update(f"{picture.id} {picture.sha256}".encode())
            for array in (picture.boxes, picture.areas, picture.labels, picture.crowd):
                total.update(array.tobytes())
        total.update(json.dumps([(c.id, c.name) for c in self.categories]).encode())
        return total.hexdigest()


@dataclass(frozen=True)
class Splits:
    """A data set as trials see it."""

    train: Split
    val: Split
    test: Split | None
    notes: tuple[str, ...] = ()
    """What the reader dropped or added, one line each."""
    val_is_from_train: bool = False
    """Whether val was split off from train because none was given."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes, the same in each split."""
        return self.train.categories

    @cached_property
    def digest(self) -> str:
        """Identity of train and val; test does not change a trial."""
        return hashlib.sha256((self.train.digest + self.val.digest).encode()).hexdigest()
