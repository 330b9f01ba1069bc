"""What a user takes away: a folder with the weights, and all that it takes to rebuild them."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .checkpoint import Damaged, load, load_trained_state, write_whole
from .config import BadInput, Model, TrainConfig
from .data.canvas import open_picture
from .data.dataset import Category, Split
from .evaluate import Metrics
from .model.backbones import Pixels, licence
from .model.detectors import Detector, build, is_coco, rebuild
from .model.weights import SPEC, WEIGHTS
from .predict import Box, draw, predict

METRICS, CARD = "metrics.json", "README.md"
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
    load_trained_state(detector, kept["model"])
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    save_file(tensors, part / WEIGHTS)
    spec = {
        "format": FORMAT,
        **config.model_dump(mode="json"),
        "categories": [asdict(category) for category in categories],
        "pixels": asdict(detector.pixels),
        "weights_sha256": detector.digest or None,
        "data": data,
        "epoch": kept["report"]["epoch"],
    }
    (part / SPEC).write_text(json.dumps(spec, indent=2))
    part.rename(out)


def read_spec(folder: Path) -> Spec:
    """The spec of an export. Raises BadInput when the folder holds none that is understood."""
    try:
        raw: dict[str, Any] = json.loads((folder / SPEC).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise BadInput([f"{folder} is no export: it has no readable {SPEC}"]) from error
    if raw.get("format") != FORMAT:
        raise BadInput([f"{folder}: format {raw.get('format')} of {SPEC} (legal: {FORMAT})"])
    try:
        return Spec(
            config=TrainConfig(model=raw["model"], train=raw["train"]),
            categories=tuple(Category(**category) for category in raw["categories"]),
            pixels=Pixels(tuple(raw["pixels"]["mean"]), tuple(raw["pixels"]["std"])),
            data=raw["data"],
            epoch=raw["epoch"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput([f"{folder / SPEC} is damaged: {type(error).__name__} {error}"]) from error


def load_export(folder: Path) -> tuple[Detector, Spec]:
    """Rebuild the detector of an export, in eval mode on the CPU, without its pretrained weights.

    Raises BadInput when the folder is no export or its weights are damaged.
    """
    spec = read_spec(folder)
    detector = rebuild(spec.config.model, len(spec.categories), spec.pixels)
    try:
        detector.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:  # safetensors and torch have a type each for each kind of damage
        raise BadInput([f"{folder / WEIGHTS} cannot be read: {error}"]) from error
    return detector.eval(), spec


def write_metrics(folder: Path, found: dict[str, Any]) -> None:
    """Put figures into an export's metrics.json, beside those that are there."""
    file = folder / METRICS
    known = json.loads(file.read_text()) if file.is_file() else {}
    write_whole(json.dumps(known | found, indent=2).encode(), file)


def record_evaluation(folder: Path, split: Split, metrics: Metrics) -> None:
    """Keep the figures of an evaluation beside an export, with the number of looks at test.

    Figures on other data stand under a name of their own: they are not the model's.
    """
    file = folder / METRICS
    known = json.loads(file.read_text()) if file.is_file() else {}
    own = known.get(split.name, {}).get("data") in (None, split.digest)
    name = split.name if own else f"{split.name} {split.digest[:12]}"
    entry: dict[str, Any] = {**asdict(metrics), "data": split.digest}
    if split.name == "test":
        entry["looks"] = known.get(name, {}).get("looks", 0) + 1
    write_metrics(folder, {name: entry})


def write_pictures(folder: Path, split: Split, threshold: float = 0.4, count: int = 6) -> None:
    """Draw predicted (coloured) and true (white) boxes on a few pictures of a split."""
    detector, spec = load_export(folder)
    place = folder / "pictures"
    place.mkdir(exist_ok=True)
    every = max(1, len(split.pictures) // count)
    for picture in split.pictures[::every][:count]:
        opened = open_picture(picture.file)
        size = spec.config.model.image_size
        found = predict(detector, spec.categories, opened, size, threshold)
        truth = [
            Box(split.categories[label - 1], 1.0, tuple(box))
            for box, label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True)
        ]
        draw(opened, found, truth).save(place / f"{picture.file.stem}.jpg", quality=90)


def write_card(folder: Path, name: str, metrics: dict[str, Any]) -> None:
    """Write the export's README: what it is, how good, and how to run it."""
    spec = read_spec(folder)
    model = spec.config.model
    names = ", ".join(category.name for category in spec.categories)
    lines = [
        f"# {name}",
        "",
        f"A {_architecture(model)}, {model.image_size} px, for: {names}.",
        "",
        "| split | AP | AP50 | AP75 | "
        + " | ".join(f"AP {category.name}" for category in spec.categories)
        + " |",
        "|" + " --- |" * (4 + len(spec.categories)),
    ]
    for split in ("val", "test"):
        if split in metrics:
            figures, classes = metrics[split]["figures"], metrics[split]["per_class"]
            values = [figures["map"], figures["map_50"], figures["map_75"], *classes.values()]
            cells = ["-" if value is None else f"{value:.3f}" for value in values]
            lines.append(f"| {split} | " + " | ".join(cells) + " |")
    looks = metrics.get("test", {}).get("looks")
    if looks:
        lines += ["", f"Test was looked at {looks} time{'s' if looks > 1 else ''}."]
    lines += [
        "",
        _weights(model),
        "",
        "```",
        "unfreeze predict THIS_FOLDER PICTURES --out predicted",
        "unfreeze evaluate THIS_FOLDER DATA --split val",
        "```",
        "",
        "Trained with:",
        "",
        "```json",
        json.dumps(spec.config.train.model_dump(mode="json"), indent=2),
        "```",
        "",
    ]
    (folder / CARD).write_text("\n".join(lines))


def _architecture(model: Model) -> str:
    if is_coco(model):
        return f"{model.detector} of torchvision's"
    return f"{model.detector} detector on a {model.backbone} backbone"


def _weights(model: Model) -> str:
    if is_coco(model):
        return f"Pretrained weights: `{model.weights}` of torchvision's `{model.detector}`."
    return (
        f"Pretrained weights: `{model.weights}` of timm's `{model.backbone}`, under the licence "
        f"that timm states for them ({licence(model.backbone)})."
    )
