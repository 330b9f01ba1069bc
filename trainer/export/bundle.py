"""Exports: the folder that a user takes away, with weights and all that rebuilds the detector."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from ..config import InputError, TrainConfig
from ..data.canvas import open_picture
from ..data.dataset import SPLIT_NAMES, Category, Split
from ..evaluation.coco_metrics import Metrics
from ..evaluation.drawing import Box, draw, unused_name
from ..evaluation.operating_point import DEFAULT_THRESHOLD
from ..evaluation.predict import predict
from ..machine_errors import is_out_of_memory
from ..model.backbones import Normalization
from ..model.checkpoint import (
    Checkpoint,
    DamagedFileError,
    load,
    load_trained_state,
    write_atomically,
)
from ..model.detectors import Detector, build, rebuild
from ..model.heads import Detect
from ..model.weights import SPEC_FILE, WEIGHTS_FILE, check_export_digest, sha256
from .conversion import PORTABLE_FILES, open_portable

METRICS_FILE = "metrics.json"
FORMAT = 1
"""Version of spec.json; it grows when older versions could not rebuild the detector."""


@dataclass(frozen=True)
class Spec:
    """What spec.json says of a detector: everything but its weights."""

    config: TrainConfig
    categories: tuple[Category, ...]
    normalization: Normalization
    data: str
    """Digest of the data set it was trained on."""
    epoch: int
    """The trial's epoch whose weights these are."""
    thresholds: dict[str, float]
    """By class name, the least score of a detection that counts, see `operating_point.py`."""


def export(
    checkpoint: Path, config: TrainConfig, categories: tuple[Category, ...], data: str, out: Path
) -> None:
    """Write a trial's checkpoint as an export folder, atomically.

    Args:
        checkpoint: The file of the checkpoint.
        config: The trial's config.
        categories: The classes, in the order of labels.
        data: Digest of the data set that it was trained on.
        out: The new folder.

    Raises:
        InputError: `out` exists, or the checkpoint cannot be read.
    """
    if out.exists():
        raise InputError([f"{out} is there already; choose another folder"])
    state = _load_checkpoint(checkpoint)
    torch.manual_seed(config.train.seed)  # a backbone without pretrained weights depends on it
    detector = build(config.model, len(categories))
    load_trained_state(detector, state)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    # safetensors' save_file would write a file that no other account may read
    (part / WEIGHTS_FILE).write_bytes(save(tensors))
    spec = {
        "format": FORMAT,
        **config.model_dump(mode="json"),
        "categories": [asdict(category) for category in categories],
        "pixels": asdict(detector.normalization),
        "weights_sha256": detector.digest or None,
        "data": data,
        "epoch": state["report"]["epoch"],
        "sha256": {WEIGHTS_FILE: sha256(part / WEIGHTS_FILE)},
        "thresholds": {category.name: DEFAULT_THRESHOLD for category in categories},
    }
    (part / SPEC_FILE).write_text(json.dumps(spec, indent=2))
    part.rename(out)


def _load_checkpoint(file: Path) -> Checkpoint:
    try:
        return load(file)
    except OSError as error:
        raise InputError([f"no checkpoint {file}: this trial kept none"]) from error
    except DamagedFileError as error:
        raise InputError([str(error)]) from error


def read_spec(folder: Path) -> Spec:
    """Read the spec of an export. Raises InputError when it is missing, damaged or too new."""
    try:
        raw: dict[str, Any] = json.loads((folder / SPEC_FILE).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError([f"{folder} is no export: it has no readable {SPEC_FILE}"]) from error
    if not isinstance(raw, dict):
        raise InputError([f"{folder} is no export: its {SPEC_FILE} holds no mapping"])
    if raw.get("format") != FORMAT:
        raise InputError([f"{folder}: format {raw.get('format')} of {SPEC_FILE} (legal: {FORMAT})"])
    try:
        categories = tuple(Category(**category) for category in raw["categories"])
        return Spec(
            config=TrainConfig(model=raw["model"], train=raw["train"]),
            categories=categories,
            normalization=Normalization(tuple(raw["pixels"]["mean"]), tuple(raw["pixels"]["std"])),
            data=raw["data"],
            epoch=raw["epoch"],
            # exports of the first version have none
            thresholds={
                c.name: raw.get("thresholds", {}).get(c.name, DEFAULT_THRESHOLD) for c in categories
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            [f"{folder / SPEC_FILE} is damaged: {type(error).__name__} {error}"]
        ) from error


def load_export(folder: Path) -> tuple[Detector, Spec]:
    """Rebuild the detector of an export, in eval mode on the CPU; needs no other file.

    Raises InputError when the folder is no export or its weights are damaged.
    """
    spec = read_spec(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise InputError([f"{folder} has no {WEIGHTS_FILE}: give the export that it was made from"])
    check_export_digest(folder / WEIGHTS_FILE)
    detector = rebuild(spec.config.model, len(spec.categories), spec.normalization)
    try:
        detector.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except Exception as error:  # damage raises many types of errors
        if is_out_of_memory(error):
            raise
        raise InputError([f"{folder / WEIGHTS_FILE} cannot be read: {error}"]) from error
    return detector.eval(), spec


def open_export(path: Path) -> tuple[Detect, Spec]:
    """Open an export to detect with it.

    Args:
        path: A file of an export, or its folder. Of a folder the safetensors file is taken, else
            the ONNX file.

    Raises:
        InputError: As in `load_export`; also when a folder holds a pt2 file alone, since
            opening one may run code.
    """
    folder = export_folder(path)
    for name in PORTABLE_FILES.values():
        if (folder / name).is_file():
            check_export_digest(folder / name)
    if path.name == WEIGHTS_FILE or (path.is_dir() and (path / WEIGHTS_FILE).is_file()):
        return load_export(folder)
    if detect := open_portable(path):
        return detect, read_spec(folder)
    if (pt2 := folder / PORTABLE_FILES["pt2"]).is_file():
        raise InputError(
            [
                f"{folder} holds a pt2 alone, which may run code as it is opened: give {pt2}, if "
                "you trust whoever made it"
            ]
        )
    return load_export(folder)


def export_folder(path: Path) -> Path:
    """The folder of an export, given the folder or one of its files."""
    return path.parent if path.is_file() else path


def write_thresholds(folder: Path, thresholds: dict[str, float]) -> None:
    """Write the operating point of each class, by name, into an export's spec."""
    _update_spec(folder, {"thresholds": thresholds})


def write_digest(file: Path) -> None:
    """Write the SHA-256 of an export's only file into its spec."""
    _update_spec(file.parent, {"sha256": {file.name: sha256(file)}})


def _update_spec(folder: Path, changes: dict[str, Any]) -> None:
    file = folder / SPEC_FILE
    spec = json.loads(file.read_text()) | changes
    write_atomically(json.dumps(spec, indent=2).encode(), file)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read an export's metrics.json; empty without one. Raises InputError when it is damaged."""
    file = folder / METRICS_FILE
    if not file.is_file():
        return {}
    try:
        metrics: dict[str, Any] = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError([f"{file} is damaged ({error}); delete it and evaluate again"]) from error
    is_sound = isinstance(metrics, dict) and all(
        isinstance(metrics.get(name, {}), dict) for name in SPLIT_NAMES
    )
    if not is_sound:
        raise InputError([f"{file} is damaged: it holds no mapping; delete it and evaluate again"])
    return metrics


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Add figures to an export's metrics.json; those of the same name are replaced."""
    content = read_metrics(folder) | metrics
    write_atomically(json.dumps(content, indent=2).encode(), folder / METRICS_FILE)


def record_evaluation(folder: Path, split: Split, metrics: Metrics) -> None:
    """Add the figures of an evaluation to an export's metrics.json, and count the looks at test.

    Figures on other data go under a name with that data's digest: they are not the model's.
    """
    known = read_metrics(folder)
    same_data = known.get(split.name, {}).get("data") in (None, split.digest)
    name = split.name if same_data else f"{split.name} {split.digest[:12]}"
    entry: dict[str, Any] = {**asdict(metrics), "data": split.digest}
    if split.name == "test":
        entry["looks"] = known.get(name, {}).get("looks", 0) + 1
    write_metrics(folder, {name: entry})


def write_pictures(folder: Path, split: Split, count: int = 6) -> None:
    """Draw predicted (coloured) and true (white) boxes on a few pictures of a split."""
    detector, spec = load_export(folder)
    out = folder / "pictures"
    out.mkdir(exist_ok=True)
    every = max(1, len(split.pictures) // count)
    taken: set[str] = set()
    for picture in split.pictures[::every][:count]:
        opened = open_picture(picture.file, picture.sha256)
        size = spec.config.model.image_size
        predicted = predict(detector, spec.categories, opened, size, spec.thresholds)
        truth = [
            Box(split.categories[label - 1], None, tuple(box))
            for box, label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True)
        ]
        draw(opened, predicted, truth).save(out / unused_name(picture.file, taken), quality=90)
