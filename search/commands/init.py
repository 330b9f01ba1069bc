"""`unfreeze init`: a commented search.yaml chosen from what a data set holds."""

import os
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from shlex import quote
from statistics import median
from typing import Any

import numpy as np
import torch

from trainer.config import MOST_DETECTIONS, BadInput, Data, Model
from trainer.data.canvas import cache_folder
from trainer.data.checks.undetectable import most_objects, needed_canvases
from trainer.data.dataset import Picture, Splits
from trainer.data.formats.layouts import find
from trainer.data.loading import load
from trainer.text.escaping import printable, quoted

from ..reporting.console import program
from ..space.data import allowing, with_images

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
  head:                      # first a new head learns on the frozen backbone; once for all trials
    {{epochs: 4, batch_size: {batch}, lr: {head_lr}, weight_decay: 1e-4}}
  unfreeze:                  # then `depth` stages of the backbone train too
    epochs: 12               # at most; ASHA stops weak trials earlier
    batch_size: {batch}
    depth: 3                 # stages from the head end: 0 to all
    schedule: at_once        # or gradual
    open_epochs: 2           # gradual opens the stages over so many; without gradual leave it out
    lr: {lr}
    backbone_lr_ratio: {ratio}   # the backbone's learning rate, as a share of lr
    stage_lr_decay: 1.0      # and of each further stage down, as a share of the one above
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
  confirm: {{top: 2, seeds: 1}}   # the best again, and this; seeds: 3 tells gain from luck; or off
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
"""On few pictures the strongest start, where there is a GPU to train it. Its neck and head are no
beginners, so that they learn at a tenth of the rate."""
LARGEST = 1024
"""The largest canvas that is chosen for objects that would vanish, in pixels a side: it takes ten
times as long as one of 320."""
FEW = 0.01
"""Share of objects that may vanish before a larger canvas is chosen."""
SMALL = 400
"""Training pictures below which batches are of 4: an epoch should have some 50 steps. On 205
pictures the head phase of 4 epochs came to 0.470 AP with 4 a batch and 0.433 with 8."""


def write_search(
    place: Path,
    out: Path,
    say: Callable[[str], None],
    allow: Sequence[str] = (),
    images: Sequence[str] = (),
) -> None:
    """Write a search.yaml for the data at `place`, whose errors of the codes `allow` are none and
    whose pictures are in the folders `images`, each DIR or SPLIT=DIR.

    Raises BadInput, also where `out` is taken.
    """
    if out.exists():
        raise BadInput([f"{out} is there already; choose another with --out"])
    if not out.resolve().parent.is_dir():
        raise BadInput([f"--out {out}: there is no folder {out.parent}"])
    if not place.exists():
        raise BadInput([f"{place}: no such file or folder"])
    data = allowing(with_images(find(place), images), allow)
    splits = load(data, cache_folder())
    for note in splits.notes:
        say(note)
    gpu = torch.cuda.is_available()
    pictures = [p for s in (splits.train, splits.val, splits.test) if s for p in s.pictures]
    size, told = _size_that_shows(pictures, _size(splits, gpu))
    for line in told:
        say(line)
    batch = 4 if len(splits.train.pictures) < SMALL else 8
    text = TEMPLATE.format(
        classes=len(splits.categories),
        names=printable(", ".join(c.name for c in splits.categories))[:200],
        counts=_counts(splits),
        name=_name(out, place),
        data=_data_lines(data, Path(os.path.abspath(out)).parent),
        model=PRETRAINED if gpu else NEW_HEAD,
        head_lr="2e-4" if gpu else "2e-3",
        lr="2e-4" if gpu else "1e-3",
        ratio=0.3 if gpu else 0.6,
        lrs="[4e-5, 1e-3]" if gpu else "[2e-4, 5e-3]",
        size=size,
        detections=_detections(pictures),
        batch=batch,
        batches=[batch // 2, batch, batch * 2],
        trials=32 if gpu else 12,
    )
    out.write_text(text)
    say(f"wrote {out}: {_counts(splits)}. Next:")
    say(f"  {program()} search {quote(str(out))}")


def _counts(splits: Splits) -> str:
    found = []
    for split in (splits.train, splits.val, splits.test):
        if split is not None:
            boxes = sum(len(p.boxes) for p in split.pictures)
            found.append(f"{split.name} {len(split.pictures)} pictures, {boxes} boxes")
    return "; ".join(found)


def _name(out: Path, place: Path) -> str:
    stem = (
        out.stem
        if out.stem != "search"
        else (place if place.is_dir() else place.parent).resolve().name
    )
    kept = "".join(c if c.isascii() and c.isalnum() or c in "-_" else "-" for c in stem)
    return kept.strip("-_")[:100] or "search"


def _data_lines(data: Data, beside: Path) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{name}: {shown(own)}" for name, own in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(value) + "]"
        path = Path(os.path.abspath(value))  # a link by its own name, as it is read
        return quoted(str(path.relative_to(beside) if path.is_relative_to(beside) else path))

    keys = ("train", "val", "test", "images", "allow")
    values = {key: value for key in keys if (value := getattr(data, key))}
    return "\n".join(f"  {key}: {shown(value)}" for key, value in values.items())


def _size(splits: Splits, gpu: bool) -> int:
    """The side at which a median object has 32 pixels, among what the machine can bear."""
    sides = [
        (box[2] * box[3]) ** 0.5 / max(p.width, p.height)
        for p in splits.train.pictures
        for box in p.boxes
    ]
    largest = 640 if gpu else 320
    wanted = 32 / median(sides)
    longest = max(max(p.width, p.height) for p in splits.train.pictures)
    return int(
        min(largest, max(320 if longest >= 320 else 128, round(min(wanted, longest) / 32) * 32))
    )


def _size_that_shows(pictures: list[Picture], size: int) -> tuple[int, list[str]]:
    """The size of the canvas from this one on at which objects do not vanish, as far as one that is
    chosen can show them, and what is to be said of it."""
    needed = needed_canvases(pictures)
    lost = int((needed > size).sum())
    before, told = size, []
    within = needed[needed <= LARGEST]
    if lost > FEW * len(needed) and (within > size).any():
        size = max(size, 32 * ceil(np.quantile(within, 1 - FEW, method="higher") / 32))
    if size > before:
        told.append(
            f"image_size is {size}: on {before} px {lost} of {len(needed)} objects would have a "
            f"side under 2 pixels; a step takes about {(size / before) ** 2:.1f} times as long"
        )
    if left := int((needed > size).sum()):
        why = (
            f"a canvas of {ceil(needed.max())} px, which would show all, is too slow to be chosen "
            "for you; cut the pictures into tiles, or write a larger image_size"
            if needed.max() > LARGEST
            else "too few to pay for a larger one"
        )
        told.append(
            f"on a canvas of {size} px {left} of {len(needed)} objects have a side under 2 pixels: "
            + why
        )
    return size, told


def _detections(pictures: list[Picture]) -> str:
    """The line for more boxes a picture than are found by default, where a picture has more."""
    most = most_objects(pictures)
    if most <= Model().detections:
        return ""
    detections = min(100 * ceil(1.2 * most / 100), MOST_DETECTIONS)
    return (
        f"  detections: {detections}            # boxes found of a picture; one here has {most}\n"
    )
