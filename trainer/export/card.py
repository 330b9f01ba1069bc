"""The model card, an export's README: what the model is, how good, its limits, how to run it."""

import json
from pathlib import Path
from typing import Any

from ..config import Model
from ..evaluation.operating_point import DEFAULT_THRESHOLD
from ..model.backbones import licence
from ..model.detectors import is_coco
from ..text.escaping import escape_markdown, printable
from .bundle import Spec, read_metrics, read_spec
from .conversion import LEAST_ONNXRUNTIME, PORTABLE_FILES

CARD = "README.md"
COMMANDS = """\
```
unfreeze predict THIS_FOLDER PICTURES --out predicted
unfreeze evaluate THIS_FOLDER DATA --split val
```"""
LETTERBOX = """\
import json, numpy, {runtime}
from PIL import Image, ImageOps
spec = json.load(open("spec.json"))
size = spec["model"]["image_size"]
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
shape = [max(1, round(side * min(size / s for s in picture.size))) for side in picture.size]
canvas = numpy.full((1, size, size, 3), 114, numpy.uint8)
canvas[0, : shape[1], : shape[0]] = picture.resize(shape, Image.Resampling.BILINEAR)
"""
DETECT = {
    "onnx": """\
session = onnxruntime.InferenceSession("model.onnx")
boxes, labels, scores = (out[0] for out in session.run(None, {"pictures": canvas}))
""",
    "pt2": """\
model = torch.export.load("model.pt2").module()
boxes, labels, scores = (out[0].numpy() for out in model(torch.from_numpy(canvas)))
""",
}
RUNTIMES = {"onnx": "onnxruntime", "pt2": "torch, torchvision"}
REQUIREMENTS = {
    "onnx": f"It needs onnxruntime {LEAST_ONNXRUNTIME} or newer.",
    "pt2": "It needs torch and torchvision, of the versions that wrote it or newer.",
}
PRINT_BOXES = """\
corners = boxes / (2 * [shape[0] / picture.width, shape[1] / picture.height])
for box, label, score in zip(corners.tolist(), labels, scores):
    name = spec["categories"][label - 1]["name"]
    if score >= spec["thresholds"][name]: print(name, f"{score:.3f}", *map(round, box))
"""


def write_card(folder: Path, name: str) -> None:
    """Write the README of an export from the files in its folder.

    Args:
        folder: The export. Its metrics.json may hold `gain`, a sentence on what the search gained.
        name: The title.
    """
    spec = read_spec(folder)
    metrics = read_metrics(folder)
    model = spec.config.model
    parts = [
        f"# {escape_markdown(name)}",
        f"A {_architecture(model)}, for pictures of "
        f"{model.image_size} x {model.image_size} px. Boxes and classes: "
        + ", ".join(
            f"{escape_markdown(category.name)} ({category.id})" for category in spec.categories
        )
        + ".",
        *_figures(spec, metrics),
        *([metrics["gain"]] if metrics.get("gain") else []),
        "## Running it",
        _running(folder),
        "## Data and recipe",
        f"Trained and selected on the data set with the SHA-256 `{spec.data}` (of the train and "
        f"val pictures, boxes and classes); the weights are those after epoch {spec.epoch}.",
        _weights(model),
        "```json\n" + json.dumps(spec.config.train.model_dump(mode="json"), indent=2) + "\n```",
        "## Limits",
        f"It knows the classes above and no others. A picture is scaled to fit the "
        f"{model.image_size} px, so what is small in a large picture may be lost; at most "
        f"{model.detections} boxes a picture are returned. The figures are for pictures like those "
        "it was trained on.",
    ]
    (folder / CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _figures(spec: Spec, metrics: dict[str, Any]) -> list[str]:
    """The table of AP with the operating point, and a sentence on both; empty without figures."""
    names = [category.name for category in spec.categories]
    heads = ["", "AP", "AP50", "AP75", *(f"AP {escape_markdown(name)}" for name in names)]
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("|" + " --- |" * (4 + len(names)))
    for split in ("val", "test"):
        if "figures" in metrics.get(split, {}):
            figures, classes = metrics[split]["figures"], metrics[split]["per_class"]
            lines.append(_row(split, figures, *classes.values()))
        if more := metrics.get(split, {}).get("at_detections"):
            lines.append(_row(f"{split}, {metrics[split]['detections']} boxes a picture", more))
    if len(lines) == 2:
        return []
    points = [f"{spec.thresholds[name]:.3f}" for name in names]
    lines.append("| score from which a box counts | | | | " + " | ".join(points) + " |")
    text = (
        "The scores are those with the best F1 of each class on val (at an IoU of 0.5), or "
        f"{DEFAULT_THRESHOLD} for a class without a right detection there."
    )
    if looks := metrics.get("test", {}).get("looks"):
        text += f" Test was evaluated {'once' if looks == 1 else f'{looks} times'}."
    return ["\n".join(lines), text]


def _row(title: str, figures: dict[str, Any], *more: float | None) -> str:
    values = [figures["map"], figures["map_50"], figures["map_75"], *more]
    cells = ["-" if value is None else f"{value:.3f}" for value in values]
    return f"| {title} | " + " | ".join(cells) + " |"


def _running(folder: Path) -> str:
    """How to run the export: with its ONNX or pt2 file alone, else with Unfreeze."""
    for format, name in PORTABLE_FILES.items():
        if (folder / name).is_file():
            file = f"/{name}" if format == "pt2" else ""  # a pt2 is opened only by its path
            code = LETTERBOX.format(runtime=RUNTIMES[format]) + DETECT[format] + PRINT_BOXES
            return (
                f"`{name}` takes any number of canvases at once, uint8 RGB, and returns the boxes "
                "of each as x1, y1, x2, y2 on the canvas, their labels from 1 and their scores, "
                "best first, padded with zeros. The picture must have 8 bits a channel and no "
                f"transparency. {REQUIREMENTS[format]}\n\n```python\n{code}```\n\n"
                f"With Unfreeze: `unfreeze predict THIS_FOLDER{file} PICTURES --out predicted`."
            )
    return COMMANDS


def _architecture(model: Model) -> str:
    if is_coco(model):
        return f"{model.detector} from torchvision"
    return f"{model.detector} detector on a {model.backbone} backbone"


def _weights(model: Model) -> str:
    if model.weights == "none":
        return "It was trained from scratch, without pretrained weights."
    if model.weights == "coco":
        return (
            f"Pretrained weights: torchvision's `{model.detector}`, trained on COCO. torchvision's "
            "code is under BSD-3-Clause; for its weights it refers to the terms of their data."
        )
    if model.weights == "imagenet":
        return (
            f"Pretrained weights: timm's `{model.backbone}`, trained on ImageNet, under the "
            f"licence that timm states for them ({licence(model.backbone)})."
        )
    file = _code(Path(model.weights).name)
    return f"Pretrained weights: the file {file}, whose licence is yours."


def _code(text: str) -> str:
    """A text as a Markdown code span, or escaped where a backtick would end the span."""
    return escape_markdown(text) if "`" in text else f"`{printable(text)}`"
