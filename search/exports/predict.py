"""`unfreeze predict`: pictures with the boxes that a model detects, and the boxes as COCO."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import InputError
from trainer.data.canvas import open_picture
from trainer.evaluation.drawing import draw, unused_name
from trainer.evaluation.predict import find_pictures, predict, to_coco
from trainer.export.bundle import open_export
from trainer.model.checkpoint import write_atomically

from .model_location import find_model
from .output_folder import filled_folder


@dataclass(frozen=True)
class Predicted:
    """How many pictures were written, with how many boxes."""

    pictures: int
    boxes: int
    unreadable: list[str]
    """A line for each picture that could not be read."""


@dataclass
class _Detections:
    """The content of `detections.json`, picture by picture."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, number: int, file: Path, size: tuple[int, int], boxes: Iterable[Any]) -> None:
        width, height = size
        image = {"id": number, "file_name": str(file), "width": width, "height": height}
        self.images.append(image)
        self.annotations += boxes

    def write(self, file: Path, categories: Iterable[Any]) -> None:
        content = {
            "images": self.images,
            "categories": [{"id": c.id, "name": c.name} for c in categories],
            "annotations": [{"id": i, **a} for i, a in enumerate(self.annotations, start=1)],
        }
        write_atomically(json.dumps(content, indent=1).encode(), file)


def predict_pictures(
    model: str,
    places: list[Path],
    storage: Path,
    out: Path,
    threshold: float | None,
    *,
    force: bool = False,
    watch: Callable[[list[Path]], Iterable[Path]] = iter,
) -> Predicted:
    """Write pictures with boxes, and `detections.json`, to a folder.

    Args:
        model: MODEL, see `find_model`.
        places: Pictures, and folders of pictures.
        storage: The folder that holds the searches.
        out: The folder to write to.
        threshold: The least score of a box; None takes the model's threshold of each class.
        force: Write into `out` if it exists.
        watch: Iterates over the files, for example with a progress bar.

    Raises:
        InputError: None of the pictures can be read, or the model or `out` cannot be used.
    """
    files = find_pictures(places)
    detect, spec = open_export(find_model(model, storage))
    if any(file.resolve().parent == out.resolve() for file in files):
        raise InputError([f"--out {out} holds the pictures themselves; choose another folder"])
    detections = _Detections()
    unreadable: list[str] = []
    names: set[str] = set()
    least = spec.thresholds if threshold is None else threshold
    with filled_folder(out, force) as part:
        for number, file in enumerate(watch(files), start=1):
            try:
                picture = open_picture(file)
            except InputError as error:
                unreadable += error.errors
                continue
            boxes = predict(detect, spec.categories, picture, spec.config.model.image_size, least)
            draw(picture, boxes).save(part / unused_name(file, names), quality=92)
            detections.add(number, file, picture.size, to_coco(number, boxes))
        if not detections.images:
            raise InputError([*unreadable, "none of the pictures can be read: nothing was written"])
        detections.write(part / "detections.json", spec.categories)
    return Predicted(len(detections.images), len(detections.annotations), unreadable)
