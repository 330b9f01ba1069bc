"""Annotated pictures in memory: what every format becomes."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Category:
    """A class under the data set's own id and name."""

    id: int
    name: str


@dataclass(frozen=True)
class Picture:
    """One picture and its boxes; sizes are as seen, after EXIF orientation."""

    id: int
    """The data set's own id."""
    file: Path
    width: int
    height: int
    sha256: str
    """Of the file's bytes."""
    boxes: NDArray[np.float64]
    """(n, 4) x, y, width, height in pixels of this picture."""
    areas: NDArray[np.float64]
    """(n,) in square pixels, as the data set has them (COCO: of the segmentations), else of the
    boxes: by them evaluation tells small, medium and large."""
    labels: NDArray[np.int64]
    """(n,) from 1: the position of the category in `Split.categories`."""
    crowd: NDArray[np.bool_]
    """(n,) whether the box is a crowd or marked `ignore`: what is there is neither an object nor,
    found or not, a mistake, in training and in evaluation."""


@dataclass(frozen=True)
class Split:
    """The pictures of train, val or test."""

    name: str
    pictures: tuple[Picture, ...]
    categories: tuple[Category, ...]

    @cached_property
    def digest(self) -> str:
        """Identity of pictures, boxes and classes: equal wherever the files lie."""
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
    """What the reader dropped or made up, a line each."""
    made: bool = False
    """Whether val was split off from train here, rather than given."""

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.train.categories

    @cached_property
    def digest(self) -> str:
        """Identity of what training and validation see; test has no say in a trial."""
        return hashlib.sha256((self.train.digest + self.val.digest).encode()).hexdigest()
