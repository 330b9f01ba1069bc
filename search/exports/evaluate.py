"""`unfreeze evaluate`: a model's COCO figures on a split."""

import errno
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.config import InputError
from trainer.data.dataset import Category
from trainer.evaluation.coco_metrics import measure
from trainer.evaluation.operating_point import best_thresholds
from trainer.export.bundle import export_folder, open_export, record_evaluation, write_thresholds
from trainer.model.checkpoint import write_atomically

from ..study.disk import is_disk_full
from .model_data import is_training_data, load_named_split
from .model_location import find_model

log = logging.getLogger(__name__)

UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors of a model's folder that is on a read-only mount, or belongs to another user."""


def evaluate_model(
    model: str,
    place: Path,
    name: str,
    storage: Path,
    detections: Path | None,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """The COCO figures of a model on a split, in fp32, picture by picture.

    They are stored in the model's folder too, if it can be written. On the val split of the data
    that the model was trained on, the thresholds of its classes are stored as well.

    Args:
        model: MODEL, see `find_model`.
        place: DATA, see `load_named_split`.
        name: The split, `val` or `test`.
        storage: The folder that holds the searches.
        detections: A file to write the detections to, as COCO results.
        allow: Codes of findings in the data that are allowed.

    Raises:
        InputError: The model or the split does not exist, or their classes differ.
    """
    location = find_model(model, storage)
    folder = export_folder(location)
    if detections is not None:
        _require_writable(detections)
    detect, spec = open_export(location)
    split = load_named_split(place, name, allow)
    _require_same_classes(place, split.categories, spec.categories)
    metrics, results = measure(
        detect, split, spec.config.model.image_size, spec.config.model.detections
    )
    if detections is not None:
        write_atomically(json.dumps(results).encode(), detections)
    try:
        record_evaluation(folder, split, metrics)
        if name == "val" and is_training_data(place, spec.data, allow):
            write_thresholds(folder, best_thresholds(split, results))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        log.warning("these figures are not stored in %s (%s)", folder, error.strerror)
    return asdict(metrics)


def _require_writable(detections: Path) -> None:
    """Raise InputError if the file cannot be written, before minutes of measuring."""
    if not detections.resolve().parent.is_dir():
        raise InputError([f"--detections {detections}: there is no folder {detections.parent}"])
    if detections.is_dir():
        raise InputError([f"--detections {detections} is a folder; give a file"])
    probe = detections.with_name(f".{detections.name}.part")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError(
            [f"--detections {detections} cannot be written ({error.strerror})"]
        ) from error


def _require_same_classes(place: Path, data: Sequence[Category], model: Sequence[Category]) -> None:
    if [(c.id, c.name) for c in data] != [(c.id, c.name) for c in model]:
        raise InputError(
            [f"{place}: its classes ({_names(data)}) are not the model's ({_names(model)})"]
        )


def _names(categories: Sequence[Category]) -> str:
    return ", ".join(f"{category.id} {category.name}" for category in categories)
