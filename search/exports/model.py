"""A trained model in Python: detect on pictures, evaluate, export."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from trainer.config import InputError
from trainer.data.canvas import open_picture
from trainer.data.dataset import Category
from trainer.data.pixels import to_rgb
from trainer.evaluation.drawing import Box, draw
from trainer.evaluation.predict import find_pictures, predict
from trainer.export.bundle import Spec, export_folder, open_export, read_metrics
from trainer.model.heads import Detect

from ..space.config import STORAGE
from .evaluate import evaluate_model
from .export_model import export_model
from .model_location import name_of

AnyPath = str | os.PathLike[str]
Picture = AnyPath | Image.Image | NDArray[np.uint8]
"""A file, an image of Pillow, or an array (height, width, 3) of RGB from 0 to 255."""


@dataclass(frozen=True)
class Prediction:
    """What a model detects on one picture, the best first. Boxes are in the picture's pixels."""

    image: Image.Image
    """The picture, upright and in RGB."""
    boxes: tuple[Box, ...]
    """Each with its category, its score and its (x, y, width, height)."""
    categories: tuple[Category, ...]
    """All classes of the model, with the ids and names of its data set."""
    file: Path | None = None
    """Of the picture, if it was read from a file."""

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """Left, top, right and bottom of each box, (boxes, 4)."""
        corners = [(x, y, x + w, y + h) for x, y, w, h in (box.xywh for box in self.boxes)]
        return np.array(corners, dtype=np.float32).reshape(-1, 4)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Score of each box from 0 to 1, (boxes,)."""
        return np.array([box.score for box in self.boxes], dtype=np.float32)

    @property
    def class_id(self) -> NDArray[np.int64]:
        """Position of each box's class among the model's classes, (boxes,)."""
        positions = {category.id: i for i, category in enumerate(self.categories)}
        return np.array([positions[box.category.id] for box in self.boxes], dtype=np.int64)

    @property
    def class_names(self) -> list[str]:
        """Name of each box's class."""
        return [box.category.name for box in self.boxes]

    def __len__(self) -> int:
        return len(self.boxes)

    def draw(self) -> Image.Image:
        """The picture with its boxes; a small one is enlarged."""
        return draw(self.image, list(self.boxes))

    def save(self, file: AnyPath) -> None:
        """Write the picture with its boxes to a file."""
        self.draw().save(file)

    def show(self) -> None:
        """Show the picture with its boxes: in a notebook below the cell, else in a viewer."""
        if Console().is_jupyter:
            from IPython.display import display

            display(self.draw())  # type: ignore[no-untyped-call]
        else:
            self.draw().show()


class Model:
    """A trained detector that was exported: a search's winner, or any exported folder."""

    def __init__(self, location: Path) -> None:
        self._location = location

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return export_folder(self._location)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return tuple(category.name for category in self._opened[1].categories)

    @property
    def thresholds(self) -> dict[str, float]:
        """The least score of a detection that counts, by class name."""
        return self._opened[1].thresholds

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured so far, by split, such as `metrics["val"]["figures"]["map"]`."""
        return read_metrics(self.folder)

    @cached_property
    def _opened(self) -> tuple[Detect, Spec]:
        return open_export(self._location)

    @overload  # a str is a file here, not a sequence of letters
    def predict(  # type: ignore[overload-overlap]
        self, picture: Picture, *, threshold: float | None = ...
    ) -> Prediction: ...

    @overload
    def predict(
        self, picture: Sequence[Picture], *, threshold: float | None = ...
    ) -> list[Prediction]: ...

    def predict(
        self, picture: Picture | Sequence[Picture], *, threshold: float | None = None
    ) -> Prediction | list[Prediction]:
        """Detect objects on a picture, or on each of several.

        Args:
            picture: A file, an image of Pillow, or an array (height, width, 3) of RGB from 0 to
                255. In a list of them, a folder or a pattern stands for all its pictures.
            threshold: The least score; None takes the model's, which each class has.

        Raises:
            InputError: A picture does not exist, or cannot be read.
        """
        if isinstance(picture, str | os.PathLike):
            return self._predict_file(Path(picture), threshold)
        if isinstance(picture, Image.Image | np.ndarray):
            return self._predict_image(_to_image(picture), threshold)
        predictions = []
        for item in picture:
            if isinstance(item, str | os.PathLike):
                files = find_pictures([Path(item)])
                predictions += [self._predict_file(file, threshold) for file in files]
            else:
                predictions.append(self._predict_image(_to_image(item), threshold))
        return predictions

    def _predict_file(self, file: Path, threshold: float | None) -> Prediction:
        if file.is_dir():
            raise InputError([f"{file} is a folder; for all its pictures give a list: [{file}]"])
        return self._predict_image(open_picture(file), threshold, file)

    def _predict_image(
        self, image: Image.Image, threshold: float | None, file: Path | None = None
    ) -> Prediction:
        detect, spec = self._opened
        least = spec.thresholds if threshold is None else threshold
        boxes = predict(detect, spec.categories, image, spec.config.model.image_size, least)
        return Prediction(image, tuple(boxes), spec.categories, file)

    def evaluate(
        self, data: AnyPath, *, split: str = "val", allow: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The 12 COCO figures on a split, like `unfreeze evaluate`.

        Args:
            data: A data set with the model's classes, a search's YAML, or a json of one split.
            split: `train`, `val` or `test`.
            allow: Codes of errors that are none in this data set.

        Returns:
            `figures` by name, `per_class` the AP of each class, and more.

        Raises:
            InputError: The split does not exist, or its classes are not the model's.
        """
        return evaluate_model(str(self._location), Path(data), split, STORAGE, None, allow)

    def export(
        self,
        out: AnyPath | None = None,
        *,
        format: str = "safetensors",
        data: AnyPath | None = None,
        force: bool = False,
    ) -> Path:
        """Write the model's files to a new folder, like `unfreeze export`.

        Args:
            out: The folder; by default the model's name and the format, such as `cells-onnx`.
            format: `safetensors`, `onnx` or `pt2`.
            data: A data set with val pictures, to compare onnx or pt2 with the original; by
                default the search's.
            force: Whether to replace an export that is there.

        Returns:
            The folder.

        Raises:
            InputError: The folder exists, or the model cannot be written in this format.
        """
        folder = Path(out) if out is not None else Path(f"{name_of(str(self.folder))}-{format}")
        export_model(
            str(self._location),
            None,
            format,
            STORAGE,
            folder,
            data=None if data is None else Path(data),
            force=force,
        )
        return folder

    def __repr__(self) -> str:
        return f"<Model {self.folder}: {', '.join(self.classes)}>"


def _to_image(picture: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise InputError(
                [
                    f"picture: an array of {picture.dtype} {picture.shape} (legal: uint8, in the "
                    "form (height, width, 3), RGB)"
                ]
            )
        picture = Image.fromarray(picture)
    return to_rgb(picture)
