"""The commented search.yaml that `unfreeze init` writes, chosen from what a data set holds."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from trainer.config import MAX_DETECTIONS, Data, InputError, Model
from trainer.data.canvas import cache_folder
from trainer.data.checks.undetectable import most_objects
from trainer.data.dataset import Picture, Splits
from trainer.data.formats.layouts import find_layout
from trainer.data.loading import load
from trainer.model.checkpoint import write_atomically
from trainer.text.escaping import printable, quote_yaml

from ..reporting.console import program_name
from ..space.canvas_size import choose_canvas_size, every_picture
from ..space.data import with_allowed_codes, with_images
from .errors import writing

STDOUT = Path("-")
"""In place of a file: standard output."""
TEMPLATE = """\
# {classes} classes: {names}
# {counts}
name: "{name}"
data:
{data}
model:                       # `unfreeze models` lists what there is
{model}
  image_size: {size}            # pictures are letterboxed onto a square of this many pixels
{detections}train:
  optimizer: adamw           # or sgd, with every lr some 5 times as high
  augment: light_flip        # or light, where left and right differ; or flip, or none
  seed: 0
  head:                      # first the head learns on the frozen backbone, once for all trials
    {{epochs: 4, batch_size: {batch}, lr: {head_lr}, weight_decay: 1e-4}}
  unfreeze:                  # then `depth` stages of the backbone train too
    epochs: 12               # at most; ASHA stops weak trials earlier
    batch_size: {batch}
    depth: 3                 # stages from the head end: 0 to all
    schedule: at_once        # or gradual
    open_epochs: 2           # gradual opens the stages over so many epochs; at_once has no use
    lr: {lr}
    backbone_lr_ratio: {ratio}   # the backbone's learning rate, as a fraction of lr
    stage_lr_decay: 1.0      # and of each further stage down, as a fraction of the one above
    weight_decay: 1e-4
space:                       # what is searched; any dotted field of model and train can be
  train.unfreeze.lr: {{log: {lrs}}}   # or {{log: auto}}, the optimizer's own range
  train.unfreeze.batch_size: {{choice: {batches}}}
  train.unfreeze.weight_decay: {{log: [1e-6, 1e-2]}}
  train.unfreeze.depth: {{int: [0, all]}}
  train.unfreeze.schedule: {{choice: [gradual, at_once]}}
search:
  trials: {trials}
  # time_budget: 2h
  seed: 0
  asha: {{grace_period: 2, reduction_factor: 3}}   # or off
  confirm: {{top: 2, seeds: 1}}   # the best 2 and this one again; seeds: 3 tells gain from luck
resources: auto              # or {{cpus_per_trial: 4, gpus_per_trial: 0.5}}
cluster: local               # or auto, or a head's address
# tracking: sqlite:///mlflow.db   # MLflow; without it MLFLOW_TRACKING_URI, else this
storage: searches/
"""
NEW_HEAD = """\
  detector: retinanet        # or fcos, faster_rcnn, ssd
  backbone: tf_efficientnet_lite0
  weights: imagenet          # or none, a local .pth or .safetensors, an exported folder"""
PRETRAINED = """\
  detector: retinanet_resnet50_fpn_v2   # torchvision's, trained on COCO; or another of its names
  weights: coco              # all but the class layers is kept; or none, a local file, an export"""
"""The strongest start on few pictures, where a GPU can train it. Its neck and head are pretrained
too, so they learn at a tenth of the rate of a new head."""
SMALL = 400
"""With fewer training pictures the batch size is 4, so that an epoch has some 50 steps. On 205
pictures the head phase of 4 epochs came to 0.470 AP with 4 a batch and 0.433 with 8."""


@dataclass(frozen=True)
class ChosenSearch:
    """A search.yaml that was chosen for a data set."""

    text: str
    data_notes: tuple[str, ...]
    """What was dropped from the data set or added to it, one line each."""
    notes: tuple[str, ...]
    """What a user should know about the choices, one line each."""
    counts: str
    """Pictures and boxes of each split, in words."""


def write_search(
    place: Path,
    out: Path,
    say: Callable[[str], None],
    allow: Sequence[str] = (),
    images: Sequence[str] = (),
) -> None:
    """Write a search.yaml for a data set.

    Args:
        place: the data set, DATA on the command line.
        out: the new file; STDOUT prints it, with paths relative to the working folder.
        say: gets a line for each thing that a user should know.
        allow: codes of errors that are none in this data set.
        images: folders of the pictures, each DIR or SPLIT=DIR.

    Raises:
        InputError: the data set has errors, or `out` exists or cannot be written.
    """
    if out != STDOUT:
        _check_out(out)
    # not resolve(): a link keeps its path, as when it is read
    folder = Path(os.path.abspath(out)).parent  # noqa: PTH100
    chosen = choose_search(place, folder, _search_name(out, place), allow, images)
    for note in (*chosen.data_notes, *chosen.notes):
        say(note)
    if out == STDOUT:
        print(chosen.text, end="")
        return
    with writing("--out", out):
        write_atomically(chosen.text.encode(), out)
    say(f"wrote {out}")
    say(f"{chosen.counts}. Next:")
    say(f"  {program_name()} search {quote(str(out))}")


def choose_search(
    place: Path,
    folder: Path,
    name: str | None = None,
    allow: Sequence[str] = (),
    images: Sequence[str] = (),
) -> ChosenSearch:
    """Choose a search for a data set: model, canvas, batch sizes and space.

    Args:
        place: the data set, DATA on the command line.
        folder: where the file is to lie; paths in the text are relative to it.
        name: of the search; None takes the name of the data set's folder.
        allow: codes of errors that are none in this data set.
        images: folders of the pictures, each DIR or SPLIT=DIR.

    Raises:
        InputError: the data set does not exist, or has errors.
    """
    if not place.exists():
        raise InputError([f"{place}: no such file or folder"])
    data = with_allowed_codes(with_images(find_layout(place), images), allow)
    splits = load(data, cache_folder())
    gpu = torch.cuda.is_available()
    size, notes = choose_canvas_size(splits, gpu)
    text = _search_yaml(name or folder_name(place), data, folder, splits, size, gpu)
    return ChosenSearch(text, tuple(splits.notes), tuple(notes), _counts(splits))


def _check_out(out: Path) -> None:
    if out.exists():
        raise InputError([f"{out} is there already; choose another with --out"])
    if not out.resolve().parent.is_dir():
        raise InputError([f"--out {out}: there is no folder {out.parent}"])


def _search_yaml(name: str, data: Data, folder: Path, splits: Splits, size: int, gpu: bool) -> str:
    """The file's text; paths below `folder` are relative to it."""
    batch_size = 4 if len(splits.train.pictures) < SMALL else 8
    return TEMPLATE.format(
        classes=len(splits.categories),
        names=printable(", ".join(c.name for c in splits.categories))[:200],
        counts=_counts(splits),
        name=name,
        data=_data_lines(data, folder),
        model=PRETRAINED if gpu else NEW_HEAD,
        head_lr="2e-4" if gpu else "2e-3",
        lr="2e-4" if gpu else "1e-3",
        ratio=0.3 if gpu else 0.6,
        lrs="[4e-5, 1e-3]" if gpu else "[2e-4, 5e-3]",
        size=size,
        detections=_detections_line(every_picture(splits)),
        batch=batch_size,
        batches=[batch_size // 2, batch_size, batch_size * 2],
        trials=32 if gpu else 12,
    )


def _counts(splits: Splits) -> str:
    parts = []
    for split in (splits.train, splits.val, splits.test):
        if split is not None:
            boxes = sum(len(p.boxes) for p in split.pictures)
            parts.append(f"{split.name} {len(split.pictures)} pictures, {boxes} boxes")
    return "; ".join(parts)


def _search_name(out: Path, place: Path) -> str:
    """The file's stem, or the data set's folder where the file is search.yaml or printed."""
    return folder_name(place) if out == STDOUT or out.stem == "search" else _as_name(out.stem)


def folder_name(place: Path) -> str:
    """The name of a data set's folder, with the letters that a search's name may have."""
    return _as_name((place if place.is_dir() else place.parent).resolve().name)


def _as_name(stem: str) -> str:
    kept = "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in stem)
    return kept.strip("-_")[:100] or "search"


def _data_lines(data: Data, folder: Path) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {shown(part)}" for key, part in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(value) + "]"
        # not resolve(): a link keeps its path, as when it is read
        path = Path(os.path.abspath(value))  # noqa: PTH100
        return quote_yaml(str(path.relative_to(folder) if path.is_relative_to(folder) else path))

    keys = ("train", "val", "test", "images", "allow")
    values = {key: value for key in keys if (value := getattr(data, key))}
    return "\n".join(f"  {key}: {shown(value)}" for key, value in values.items())


def _detections_line(pictures: list[Picture]) -> str:
    """The line that raises `model.detections`, where a picture has more objects than its default.

    Empty where the default is enough.
    """
    most = most_objects(pictures)
    if most <= Model().detections:
        return ""
    detections = min(100 * ceil(1.2 * most / 100), MAX_DETECTIONS)
    return f"  detections: {detections}            # boxes kept of a picture; one here has {most}\n"
