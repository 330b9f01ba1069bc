"""Detectors: a pretrained backbone with a new neck and head of torchvision's, or one of its own."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import sqrt
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSDHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ..config import NAMED_WEIGHTS, BadInput, CocoDetector, Model, TrainConfig
from . import backbones
from . import torchvision_coco as coco
from . import weights as files
from .acceleration.chain import FrozenOutputs
from .acceleration.cpu_bf16 import work_around
from .acceleration.cuda_graphs import CudaGraphs
from .acceleration.folding import fold_norms
from .backbones import Backbone, Pixels
from .freezing import BATCH_NORMS
from .heads import (
    Detections,
    FasterRCNNFromPyramid,
    FCOSFromPyramid,
    Features,
    Head,
    NoBackbone,
    Outputs,
    RetinaNetFromPyramid,
    SSDFromPyramid,
    find_at_most,
)
from .losses import Targets, Truth, gather

CHANNELS = 96
"""Channels of neck and head. Torchvision's heads have 256; half of that with its 4 convolutions a
branch already learnt slower a head epoch on 205 pictures, and cost about twice as much a step
(`benchmarks/head.py` compares them)."""
BRANCH_CONVS = 2
"""Convolutions of RetinaNet's and FCOS's two branches, of torchvision's 4: for the same reason."""
GIOU_WEIGHT, NMS = 2.0, 0.6
"""As mmdetection's configurations of ATSS and GFL have them, whose heads are RetinaNet's with a
GIoU loss. Weight 2 gave 0.555 AP instead of 0.548 on BCCD's val, and 0.560 instead of 0.559 on its
test (lite0, 320 px, 4 + 12 epochs, one run each); of one detector NMS at 0.6 instead of 0.5 made
0.555 of 0.553, and 0.555 of 0.553."""
LEVELS = 5
"""Levels of the neck: strides 8 to 128."""


@dataclass(frozen=True)
class Shape:
    """What a detector's architecture depends on, besides the backbone's name."""

    classes: int
    """Number of classes K; labels are 1 to K, and 0 is the background."""
    image_size: int


class Detector(nn.Module):
    """Backbone, neck and head of one detector on a fixed canvas.

    Called with uint8 pictures (N, 3, S, S) and, in training, targets: per picture `boxes` (n, 4)
    as x1, y1, x2, y2 in canvas pixels and `labels` (n,) from 1. Returns a dict of losses in
    training; else per picture `boxes`, `labels` and `scores`, best first. Where `frozen` holds what
    the frozen stages gave for the pictures, these are not looked at again.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, neck: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone.module
        self.neck = neck
        self.head = head
        self.stages = backbone.stages
        self.strides = backbone.strides
        self.digest = backbone.digest
        self.cuda_graphs = CudaGraphs()
        self.pixels = pixels = backbone.pixels
        mean = 255 * torch.tensor(pixels.mean).reshape(1, 3, 1, 1)
        std = 255 * torch.tensor(pixels.std).reshape(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def normalize(self, pictures: Tensor) -> Tensor:
        """Uint8 pictures as the backbone wants them."""
        pixels = (pictures.to(self.mean.dtype) - self.mean) / self.std
        return pixels.contiguous(memory_format=torch.channels_last)

    def features(self, pictures: Tensor, frozen: FrozenOutputs | None = None) -> Features:
        """The feature pyramid of uint8 pictures, finest level first."""
        maps = frozen.maps() if frozen else self.backbone(self.normalize(pictures))
        maps = [_at_stride(m, pictures, s) for m, s in zip(maps, self.strides, strict=True)]
        pyramid: Features = self.neck(OrderedDict((str(i), m) for i, m in enumerate(maps)))
        return pyramid

    def outputs(self, pictures: Tensor, frozen: FrozenOutputs | None = None) -> Outputs:
        """What the head makes of uint8 pictures before it looks at boxes."""
        return self.head.outputs(self.features(pictures, frozen))

    def alike(
        self, pictures: Tensor, truth: Truth, frozen: FrozenOutputs | None
    ) -> dict[str, Tensor]:
        """What is computed alike for every batch of training, see `heads`."""
        outputs = self.outputs(pictures, frozen)
        with torch.autocast(pictures.device.type, enabled=False):
            return self.head.alike(outputs, pictures, truth)

    def forward(
        self,
        pictures: Tensor,
        targets: Targets | None = None,
        frozen: FrozenOutputs | None = None,
    ) -> dict[str, Tensor] | Detections:
        if targets is None:
            outputs = self.outputs(pictures, frozen)
        else:
            found = self.cuda_graphs.run(self, self.alike, pictures, gather(targets), frozen)
        with torch.autocast(pictures.device.type, enabled=False):
            if targets is None:
                return self.head.detections(outputs, pictures)
            return self.head.losses(found, pictures, targets)


def build(model: Model, classes: int) -> Detector:
    """Build a detector for that many classes with its pretrained weights.

    New weights come from torch's global generator: seed it first. Raises BadInput like
    `backbones.build` and `coco.build`.
    """
    if found := errors(model):
        raise BadInput(found)
    detector = Detector(*_parts(model, classes))
    detector.to(memory_format=torch.channels_last)
    work_around(detector)
    fold_norms(detector.backbone, detector.stages, model.image_size)
    if Path(model.weights).is_dir():
        _go_on_from(detector, model)
    return detector


def rebuild(model: Model, classes: int, pixels: Pixels) -> Detector:
    """The architecture of a detector whose weights are elsewhere, as in an export."""
    detector = Detector(*_parts(model.model_copy(update={"weights": "none"}), classes, pixels))
    detector.to(memory_format=torch.channels_last)
    fold_norms(detector.backbone, detector.stages, model.image_size)
    return detector


def _parts(
    model: Model, classes: int, pixels: Pixels | None = None
) -> tuple[Backbone, nn.Module, Head]:
    neck: nn.Module
    if is_coco(model):
        backbone, neck, head = coco.build(model.detector, model.weights, classes)
    else:
        backbone = backbones.build(model.backbone, model.weights, pixels)
        neck = FeaturePyramidNetwork(
            list(backbone.channels), CHANNELS, extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS)
        )
        head = HEADS[model.detector](Shape(classes, model.image_size))
    find_at_most(head, model.detections)
    return backbone, neck, head


def is_coco(model: Model) -> bool:
    """Whether the detector is one of torchvision's, with a backbone of its own."""
    return model.detector in get_args(CocoDetector)


def _go_on_from(detector: Detector, model: Model) -> None:
    """Take over whatever fits of an earlier export: all of its backbone, and of neck and head."""
    found = files.read(Path(model.weights), coco.LEGAL)
    own = detector.state_dict()
    fits = {n: t for n, t in found.state.items() if n in own and own[n].shape == t.shape}
    missing = [n for n in own if n.startswith("backbone.") and n not in fits]
    if missing:
        name = model.detector if is_coco(model) else model.backbone
        raise files.misfit(model.weights, name, missing, [], f"an export of {name}")
    detector.load_state_dict(fits, strict=False)
    detector.digest = found.digest


def errors(model: Model) -> list[str]:
    """What makes a model impossible, one line each; an empty list when it is sound."""
    found = []
    if model.weights not in NAMED_WEIGHTS and not Path(model.weights).exists():
        legal = coco.LEGAL if is_coco(model) else backbones.LEGAL
        found.append(f"model.weights: no file or folder {model.weights} (legal: {legal})")
    if is_coco(model):
        if model.weights == "imagenet":
            found.append(
                f"model.weights: imagenet (legal for {model.detector}: {coco.LEGAL}; for a new "
                "head on a backbone of ImageNet choose retinanet, fcos, faster_rcnn or ssd)"
            )
        smallest = coco.SMALLEST.get(model.detector, 0)
        if model.image_size < smallest:
            found.append(
                f"model.image_size: {model.image_size} (legal for {model.detector}: at least "
                f"{smallest})"
            )
        return found
    if model.weights == "coco":
        found.append(
            f"model.weights: coco is of torchvision's own detectors, not of {model.detector} "
            f"(legal: {backbones.LEGAL}; or model.detector: {', '.join(get_args(CocoDetector))})"
        )
    try:
        found += backbones.size_errors(model.backbone, model.image_size)
    except BadInput as error:
        found += error.errors
    return found


def unused(config: TrainConfig) -> dict[str, str]:
    """Dotted fields that change nothing with this model, and why."""
    model, found = config.model, {}
    drop_path, batch_norm = "train.unfreeze.drop_path", "train.unfreeze.batch_norm"
    if is_coco(model):
        name = f"torchvision's {model.detector}"
        found["model.backbone"] = f"model.detector is {model.detector}, which has its own"
        found[drop_path] = f"{name} has no stochastic depth"
        if coco.BODIES[model.detector].eps == 0:
            found[batch_norm] = f"the norms of {name} were trained frozen, without an eps"
    else:
        name = f"timm's {model.backbone}"
        if not backbones.has_drop_path(model.backbone):
            found[drop_path] = f"{name} has no stochastic depth"
    if not outline(model.model_copy(update={"weights": "none"})).adapts:
        found.setdefault(batch_norm, f"{name} has no BatchNorm")
    return found


@dataclass(frozen=True)
class Outline:
    """How large the parts of a detector are, in parameters."""

    stages: tuple[int, ...]
    """Of the backbone, bottom first."""
    layers: tuple[tuple[str, ...], ...]
    """The modules of each stage that hold its parameters, as far up as they are its own."""
    rest: int
    """Neck and head."""
    adapts: bool
    """Whether it has a BatchNorm whose statistics could follow the batches."""

    def trainable(self, depth: int) -> int:
        """Parameters that train at a depth."""
        return self.rest + sum(self.stages[len(self.stages) - depth :])


@cache
def outline(model: Model, classes: int = 1) -> Outline:
    """Parts of a detector, without allocating it. Raises BadInput like `build`."""
    unweighted = model.model_copy(update={"weights": "none"})
    if found := errors(unweighted):
        raise BadInput(found)
    with torch.device("meta"):
        detector = Detector(*_parts(unweighted, classes))
    sizes = {name: p.numel() for name, p in detector.named_parameters()}
    stages = tuple(sum(sizes[f"backbone.{n}"] for n in s.parameters) for s in detector.stages)
    layers = tuple(tuple(_layers(stage.parameters)) for stage in detector.stages)
    adapts = any(isinstance(m, BATCH_NORMS) and m.eps for m in detector.modules())
    return Outline(stages, layers, sum(sizes.values()) - sum(stages), adapts)


def count_stages(model: Model) -> int:
    """Stages of a detector's backbone, without allocating it. Raises BadInput like `build`."""
    if is_coco(model):
        return len(coco.BODIES[model.detector].ends)
    return backbones.count_stages(model.backbone)


def _retinanet(shape: Shape) -> Head:
    anchors = _anchors(shape, scales=(1, 2 ** (1 / 3), 2 ** (2 / 3)))
    head = RetinaNetHead(
        CHANNELS,
        anchors.num_anchors_per_location()[0],
        shape.classes + 1,
        norm_layer=partial(nn.GroupNorm, 32),  # without it the first unfrozen epochs blow up
    )
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[:BRANCH_CONVS]
    head.regression_head._loss_type = "giou"  # as torchvision's own v2 builder sets it
    return RetinaNetFromPyramid(head, anchors, shape.classes, GIOU_WEIGHT, NMS)


def _fcos(shape: Shape) -> Head:
    """FCOS's points are as large as their stride or, on a large canvas, as its share: a level then
    finds what RetinaNet's anchors of that level would, boxes of up to 8 times a point."""
    sizes = [max(stride, shape.image_size * stride / 320) for stride in (8, 16, 32, 64, 128)]
    points = AnchorGenerator(tuple((size,) for size in sizes), ((1.0,),) * LEVELS)
    return FCOSFromPyramid(
        FCOSHead(CHANNELS, 1, shape.classes + 1, BRANCH_CONVS), points, shape.classes
    )


def _faster_rcnn(shape: Shape) -> Head:
    return FasterRCNNFromPyramid(
        FasterRCNN(
            NoBackbone(CHANNELS),
            shape.classes + 1,
            rpn_anchor_generator=_anchors(shape, scales=(1, sqrt(2))),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2),
        )
    )


def _ssd(shape: Shape) -> Head:
    scales = [_base(shape) * 2**level / shape.image_size for level in range(LEVELS + 1)]
    boxes = DefaultBoxGenerator([[2, 3]] * LEVELS, scales=scales)
    head = SSDHead([CHANNELS] * LEVELS, boxes.num_anchors_per_location(), shape.classes + 1)
    return SSDFromPyramid(head, boxes)


HEADS: dict[str, Callable[[Shape], Head]] = {
    "retinanet": _retinanet,
    "fcos": _fcos,
    "faster_rcnn": _faster_rcnn,
    "ssd": _ssd,
}


def _base(shape: Shape) -> float:
    """Pixels of the smallest anchor: a sixteenth of the canvas, doubling a level; on a small canvas
    20 at least: objects that span one cell of their map are located but hardly named."""
    return max(shape.image_size / 16, 20)


def _anchors(shape: Shape, scales: tuple[float, ...]) -> AnchorGenerator:
    base = _base(shape)
    sizes = tuple(tuple(base * 2**level * scale for scale in scales) for level in range(LEVELS))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * LEVELS)


def _at_stride(features: Tensor, pictures: Tensor, stride: int) -> Tensor:
    """A map at exactly its stride; Inception's unpadded convolutions leave theirs too small."""
    size = (pictures.shape[-2] // stride, pictures.shape[-1] // stride)
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size, mode="bilinear", align_corners=False)


def _layers(parameters: list[str]) -> list[str]:
    """The first names of a stage's parameters, `layer1` or `blocks.0`, each once."""
    found = []
    for name in parameters:
        first, *more = name.split(".")
        found.append(f"{first}.{more[0]}" if first in {"blocks", "stages", "features"} else first)
    return list(dict.fromkeys(found))
