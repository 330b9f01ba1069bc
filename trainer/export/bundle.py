"""What a user takes away: a folder with the weights, and all that it takes to rebuild them."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from ..config import BadInput, TrainConfig
from ..data.canvas import open_picture
from ..data.dataset import SPLIT_NAMES, Category, Split
from ..evaluation.coco_metrics import Metrics
from ..evaluation.drawing import Box, draw, free_name
from ..evaluation.operating_point import DEFAULT
from ..evaluation.predict import predict
from ..machine_errors import is_out_of_memory
from ..model.backbones import Pixels
from ..model.checkpoint import Damaged, load, load_trained_state, write_whole
from ..model.detectors import Detector, build, rebuild
from ..model.heads import Detect
from ..model.weights import SPEC, WEIGHTS, require_whole, sha256
from .conversion import FILES, open_portable

METRICS = "metrics.json"
FORMAT = 1
"""Of spec.json; raised when an older reader could not rebuild the detector."""


@dataclass(frozen=True)
class Spec:
    """What a detector is, apart from its weights."""

    config: TrainConfig
    categories: tuple[Category, ...]
    pixels: Pixels
    data: str
    """Digest of the data set it was trained on."""
    epoch: int
    """The trial's epoch whose weights these are."""
    thresholds: dict[str, float]
    """Score from which on a detection counts, by class name, see `operating_point.py`."""


def export(
    checkpoint: Path, config: TrainConfig, categories: tuple[Category, ...], data: str, out: Path
) -> None:
    """Write a trial's checkpoint as an export folder, whole or not at all.

    Raises BadInput when `out` is there already or the checkpoint cannot be read.
    """
    if out.exists():
        raise BadInput([f"{out} is there already; choose another folder"])
    try:
        kept = load(checkpoint)
    except OSError as error:
        raise BadInput([f"no checkpoint {checkpoint}: this trial kept none"]) from error
    except Damaged as error:
        raise BadInput([str(error)]) from error
    torch.manual_seed(config.train.seed)  # of a backbone without pretrained weights
    detector = build(config.model, len(categories))
    load_trained_state(detector, kept)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    # by itself safetensors writes a file that no other account may read
    (part / WEIGHTS).write_bytes(save(tensors))
    spec = {
        "format": FORMAT,
        **config.model_dump(mode="json"),
        "categories": [asdict(category) for category in categories],
        "pixels": asdict(detector.pixels),
        "weights_sha256": detector.digest or None,
        "data": data,
        "epoch": kept["report"]["epoch"],
        "sha256": {WEIGHTS: sha256(part / WEIGHTS)},
        "thresholds": {category.name: DEFAULT for category in categories},
    }
    (part / SPEC).write_text(json.dumps(spec, indent=2))
    part.rename(out)


def read_spec(folder: Path) -> Spec:
    """The spec of an export. Raises BadInput when the folder holds none that is understood."""
    try:
        raw: dict[str, Any] = json.loads((folder / SPEC).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput([f"{folder} is no export: it has no readable {SPEC}"]) from error
    if not isinstance(raw, dict):
        raise BadInput([f"{folder} is no export: its {SPEC} holds no mapping"])
    if raw.get("format") != FORMAT:
        raise BadInput([f"{folder}: format {raw.get('format')} of {SPEC} (legal: {FORMAT})"])
    try:
        categories = tuple(Category(**category) for category in raw["categories"])
        return Spec(
            config=TrainConfig(model=raw["model"], train=raw["train"]),
            categories=categories,
            pixels=Pixels(tuple(raw["pixels"]["mean"]), tuple(raw["pixels"]["std"])),
            data=raw["data"],
            epoch=raw["epoch"],
            # not in exports of the first version
            thresholds={c.name: raw.get("thresholds", {}).get(c.name, DEFAULT) for c in categories},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput([f"{folder / SPEC} is damaged: {type(error).__name__} {error}"]) from error


def load_export(folder: Path) -> tuple[Detector, Spec]:
    """Rebuild the detector of an export, in eval mode on the CPU, without its pretrained weights.

    Raises BadInput when the folder is no export or its weights are damaged.
    """
    spec = read_spec(folder)
    if not (folder / WEIGHTS).is_file():
        raise BadInput([f"{folder} has no {WEIGHTS}: give the export that it was made from"])
    require_whole(folder / WEIGHTS)
    detector = rebuild(spec.config.model, len(spec.categories), spec.pixels)
    try:
        detector.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:  # safetensors and torch have a type each for each kind of damage
        if is_out_of_memory(error):
            raise
        raise BadInput([f"{folder / WEIGHTS} cannot be read: {error}"]) from error
    return detector.eval(), spec


def open_export(place: Path) -> tuple[Detect, Spec]:
    """What detects in an export: in one file of it, or in a folder its safetensors, else its ONNX.

    Raises BadInput like `load_export`, and for a folder with a pt2 alone: to open one may run code.
    """
    folder = folder_of(place)
    for name in FILES.values():
        if (folder / name).is_file():
            require_whole(folder / name)
    if place.name == WEIGHTS or (place.is_dir() and (place / WEIGHTS).is_file()):
        return load_export(folder)
    if detect := open_portable(place):
        return detect, read_spec(folder)
    if (pt2 := folder / FILES["pt2"]).is_file():
        raise BadInput(
            [
                f"{folder} holds a pt2 alone, which may run code as it is opened: give {pt2}, if "
                "you trust whoever made it"
            ]
        )
    return load_export(folder)


def folder_of(place: Path) -> Path:
    """The folder of an export that a MODEL, it or one file of it, names."""
    return place.parent if place.is_file() else place


def write_thresholds(folder: Path, thresholds: dict[str, float]) -> None:
    """Put the operating point of each class, by name, into an export's spec."""
    _amend(folder, {"thresholds": thresholds})


def write_digest(file: Path) -> None:
    """Put the SHA-256 of an export's one file into its spec."""
    _amend(file.parent, {"sha256": {file.name: sha256(file)}})


def _amend(folder: Path, changes: dict[str, Any]) -> None:
    file = folder / SPEC
    spec = json.loads(file.read_text()) | changes
    write_whole(json.dumps(spec, indent=2).encode(), file)


def read_metrics(folder: Path) -> dict[str, Any]:
    """The figures beside an export, none where there are none. Raises BadInput when their file is
    damaged."""
    file = folder / METRICS
    if not file.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise BadInput([f"{file} is damaged ({error}); delete it and evaluate again"]) from error
    of_splits = [found.get(name, {}) for name in SPLIT_NAMES] if isinstance(found, dict) else [None]
    if not all(isinstance(figures, dict) for figures in of_splits):
        raise BadInput([f"{file} is damaged: it holds no mapping; delete it and evaluate again"])
    return found


def write_metrics(folder: Path, found: dict[str, Any]) -> None:
    """Put figures into an export's metrics.json, beside those that are there."""
    content = read_metrics(folder) | found
    write_whole(json.dumps(content, indent=2).encode(), folder / METRICS)


def record_evaluation(folder: Path, split: Split, metrics: Metrics) -> None:
    """Keep the figures of an evaluation beside an export, with the number of looks at test.

    Figures on other data stand under a name of their own: they are not the model's.
    """
    known = read_metrics(folder)
    own = known.get(split.name, {}).get("data") in (None, split.digest)
    name = split.name if own else f"{split.name} {split.digest[:12]}"
    entry: dict[str, Any] = {**asdict(metrics), "data": split.digest}
    if split.name == "test":
        entry["looks"] = known.get(name, {}).get("looks", 0) + 1
    write_metrics(folder, {name: entry})


def write_pictures(folder: Path, split: Split, count: int = 6) -> None:
    """Draw predicted (coloured) and true (white) boxes on a few pictures of a split."""
    detector, spec = load_export(folder)
    place = folder / "pictures"
    place.mkdir(exist_ok=True)
    every = max(1, len(split.pictures) // count)
    taken: set[str] = set()
    for picture in split.pictures[::every][:count]:
        opened = open_picture(picture.file, picture.sha256)
        size = spec.config.model.image_size
        found = predict(detector, spec.categories, opened, size, spec.thresholds)
        truth = [
            Box(split.categories[label - 1], None, tuple(box))
            for box, label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True)
        ]
        draw(opened, found, truth).save(place / free_name(picture.file, taken), quality=90)
