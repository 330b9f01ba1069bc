"""Detectors: a backbone from timm with a new neck and head, or one of torchvision's COCO models."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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

from ..config import NAMED_WEIGHTS, CocoDetector, InputError, Model
from . import backbone_weights, backbones
from . import torchvision_coco as coco
from . import weights as weight_files
from .acceleration.chain import FrozenFeatures
from .acceleration.cpu_bf16 import patch_for_cpu_bf16
from .acceleration.cuda_graphs import CudaGraphs
from .acceleration.folding import fold_norms
from .backbones import Backbone, Normalization
from .heads import (
    Detections,
    FasterRCNNFromPyramid,
    FCOSFromPyramid,
    Features,
    Head,
    HeadOutputs,
    NoBackbone,
    RetinaNetFromPyramid,
    SSDFromPyramid,
    limit_detections,
)
from .matching import BatchTargets, Targets, pad_targets

CHANNELS = 96
"""Channels of neck and head; torchvision's heads have 256. With 128 channels and torchvision's 4
convolutions a branch, a head epoch on 205 pictures learnt more slowly and a step cost about twice
as much (`benchmarks/head.py` compares them)."""
BRANCH_CONVS = 2
"""Convolutions of each of RetinaNet's and FCOS's two branches; torchvision has 4, see CHANNELS."""
GIOU_WEIGHT, NMS_IOU = 2.0, 0.6
"""Of RetinaNet, from mmdetection's configurations of ATSS and GFL, whose heads are RetinaNet's with
a GIoU loss. Weight 2 instead of 1 gave 0.555 AP, not 0.548, on BCCD's val, and 0.560, not 0.559, on
its test (lite0, 320 px, 4 + 12 epochs, one run each). NMS at 0.6 instead of 0.5 gave the same
detector 0.555 AP, not 0.553, both times."""
LEVELS = 5
"""Levels of the neck: strides 8 to 128."""


@dataclass(frozen=True)
class HeadConfig:
    """What the architecture of a new head depends on, besides its kind."""

    classes: int
    """Number of classes K; labels are 1 to K, and 0 is the background."""
    image_size: int


class Detector(nn.Module):
    """Backbone, neck and head of one detector on a fixed canvas.

    Called with uint8 pictures (N, 3, S, S), and in training with their targets: per picture `boxes`
    (n, 4) as x1, y1, x2, y2 in canvas pixels and `labels` (n,) from 1. Returns a dict of scalar
    losses in training; else per picture `boxes`, `labels` and `scores`, best first. With `frozen`,
    the features of the frozen stages, the backbone does not look at the pictures.
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
        self.normalization = backbone.normalization
        mean = 255 * torch.tensor(self.normalization.mean).reshape(1, 3, 1, 1)
        std = 255 * torch.tensor(self.normalization.std).reshape(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def normalize(self, pictures: Tensor) -> Tensor:
        """Turn uint8 pictures (N, 3, S, S) into the backbone's input of the same shape."""
        pixels = (pictures.to(self.mean.dtype) - self.mean) / self.std
        return pixels.contiguous(memory_format=torch.channels_last)

    def features(self, pictures: Tensor, frozen: FrozenFeatures | None = None) -> Features:
        """The feature pyramid of uint8 pictures (N, 3, S, S), finest level first."""
        maps = frozen.maps() if frozen else self.backbone(self.normalize(pictures))
        maps = [_resize_to_stride(m, pictures, s) for m, s in zip(maps, self.strides, strict=True)]
        pyramid: Features = self.neck(OrderedDict((str(i), m) for i, m in enumerate(maps)))
        return pyramid

    def outputs(self, pictures: Tensor, frozen: FrozenFeatures | None = None) -> HeadOutputs:
        """The outputs of the head's convolutions for uint8 pictures (N, 3, S, S)."""
        return self.head.outputs(self.features(pictures, frozen))

    def static_losses(
        self, pictures: Tensor, targets: BatchTargets, frozen: FrozenFeatures | None
    ) -> dict[str, Tensor]:
        """The part of the losses whose shapes do not depend on the data.

        A CUDA graph can record it, since it runs the same kernels on the same shapes at each step.
        A head with proposals, whose number varies, gives its pyramid instead, see `heads`.
        """
        outputs = self.outputs(pictures, frozen)
        with torch.autocast(pictures.device.type, enabled=False):
            return self.head.static_losses(outputs, pictures, targets)

    def forward(
        self,
        pictures: Tensor,
        targets: Targets | None = None,
        frozen: FrozenFeatures | None = None,
    ) -> dict[str, Tensor] | Detections:
        """Losses where there are targets, else detections; see the class."""
        device = pictures.device.type
        if targets is None:
            outputs = self.outputs(pictures, frozen)
            with torch.autocast(device, enabled=False):
                return self.head.detections(outputs, pictures)
        static = self.cuda_graphs.run(
            self, self.static_losses, pictures, pad_targets(targets), frozen
        )
        with torch.autocast(device, enabled=False):
            return self.head.losses(static, pictures, targets)


def build(model: Model, classes: int) -> Detector:
    """Build a detector for that many classes with its pretrained weights.

    New weights come from torch's global generator, so seed it first. Raises InputError for a model
    that cannot be (see `errors`) and for weights that cannot be fetched, are damaged or do not fit.
    """
    if problems := model_errors(model):
        raise InputError(problems)
    detector = assemble(model, classes)
    detector.to(memory_format=torch.channels_last)
    patch_for_cpu_bf16(detector)
    fold_norms(detector.backbone, detector.stages, model.image_size)
    if Path(model.weights).is_dir():
        _load_earlier_export(detector, model)
    return detector


def rebuild(model: Model, classes: int, normalization: Normalization) -> Detector:
    """The architecture of a detector whose weights are loaded afterwards, as those of an export."""
    detector = assemble(model.model_copy(update={"weights": "none"}), classes, normalization)
    detector.to(memory_format=torch.channels_last)
    fold_norms(detector.backbone, detector.stages, model.image_size)
    return detector


def assemble(model: Model, classes: int, normalization: Normalization | None = None) -> Detector:
    """Put backbone, neck and head of a sound model together."""
    neck: nn.Module
    if is_coco(model):
        backbone, neck, head = coco.build(model.detector, model.weights, classes)
    else:
        backbone = backbones.build(model.backbone, model.weights, normalization)
        neck = FeaturePyramidNetwork(
            list(backbone.channels), CHANNELS, extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS)
        )
        head = HEADS[model.detector](HeadConfig(classes, model.image_size))
    limit_detections(head, model.detections)
    return Detector(backbone, neck, head)


def is_coco(model: Model) -> bool:
    """Whether the detector is one of torchvision's COCO detectors, which bring their backbones."""
    return model.detector in get_args(CocoDetector)


def _load_earlier_export(detector: Detector, model: Model) -> None:
    """Load an export: all of its backbone, and those tensors of neck and head that fit."""
    weights = weight_files.read(Path(model.weights), coco.LEGAL_WEIGHTS)
    expected = detector.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.state.items()
        if name in expected and expected[name].shape == tensor.shape
    }
    missing = [n for n in expected if n.startswith("backbone.") and n not in fitting]
    if missing:
        name = model.detector if is_coco(model) else model.backbone
        raise weight_files.mismatch_error(model.weights, name, missing, [], f"an export of {name}")
    detector.load_state_dict(fitting, strict=False)
    detector.digest = weights.digest


def model_errors(model: Model) -> list[str]:
    """Everything that makes a model impossible, one line each; empty for a sound one."""
    problems = []
    if model.weights not in NAMED_WEIGHTS and not Path(model.weights).exists():
        legal = coco.LEGAL_WEIGHTS if is_coco(model) else backbone_weights.LEGAL_WEIGHTS
        problems.append(f"model.weights: no file or folder {model.weights} (legal: {legal})")
    return problems + (_coco_errors(model) if is_coco(model) else _backbone_errors(model))


def _coco_errors(model: Model) -> list[str]:
    problems = []
    if model.weights == "imagenet":
        problems.append(
            f"model.weights: imagenet (legal for {model.detector}: {coco.LEGAL_WEIGHTS}; for a new "
            "head on a backbone of ImageNet choose retinanet, fcos, faster_rcnn or ssd)"
        )
    smallest = coco.SMALLEST_CANVAS.get(model.detector, 0)
    if model.image_size < smallest:
        problems.append(
            f"model.image_size: {model.image_size} (legal for {model.detector}: at least "
            f"{smallest})"
        )
    return problems


def _backbone_errors(model: Model) -> list[str]:
    problems = []
    if model.weights == "coco":
        problems.append(
            f"model.weights: coco goes with torchvision's detectors, not with {model.detector} "
            f"(legal: {backbone_weights.LEGAL_WEIGHTS}; or model.detector: "
            f"{', '.join(get_args(CocoDetector))})"
        )
    try:
        problems += backbones.size_errors(model.backbone, model.image_size)
    except InputError as error:
        problems += error.errors
    return problems


def _retinanet(config: HeadConfig) -> Head:
    anchors = _anchors(config, scales=(1, 2 ** (1 / 3), 2 ** (2 / 3)))
    head = RetinaNetHead(
        CHANNELS,
        anchors.num_anchors_per_location()[0],
        config.classes + 1,
        norm_layer=partial(nn.GroupNorm, 32),  # without it losses blow up as the backbone opens
    )
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[:BRANCH_CONVS]
    head.regression_head._loss_type = "giou"  # as torchvision's builder of its v2 does
    return RetinaNetFromPyramid(head, anchors, config.classes, GIOU_WEIGHT, NMS_IOU)


def _fcos(config: HeadConfig) -> Head:
    """FCOS with points of their level's stride, larger in proportion on a canvas above 320 px.

    A point matches boxes of up to 8 times its size, so each level finds boxes of about the sizes
    that RetinaNet's anchors of that level find.
    """
    sizes = [max(stride, config.image_size * stride / 320) for stride in (8, 16, 32, 64, 128)]
    points = AnchorGenerator(tuple((size,) for size in sizes), ((1.0,),) * LEVELS)
    return FCOSFromPyramid(
        FCOSHead(CHANNELS, 1, config.classes + 1, BRANCH_CONVS), points, config.classes
    )


def _faster_rcnn(config: HeadConfig) -> Head:
    return FasterRCNNFromPyramid(
        FasterRCNN(
            NoBackbone(CHANNELS),
            config.classes + 1,
            rpn_anchor_generator=_anchors(config, scales=(1, sqrt(2))),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2),
        )
    )


def _ssd(config: HeadConfig) -> Head:
    smallest = _smallest_anchor(config)
    scales = [smallest * 2**level / config.image_size for level in range(LEVELS + 1)]
    boxes = DefaultBoxGenerator([[2, 3]] * LEVELS, scales=scales)
    head = SSDHead([CHANNELS] * LEVELS, boxes.num_anchors_per_location(), config.classes + 1)
    return SSDFromPyramid(head, boxes)


HEADS: dict[str, Callable[[HeadConfig], Head]] = {
    "retinanet": _retinanet,
    "fcos": _fcos,
    "faster_rcnn": _faster_rcnn,
    "ssd": _ssd,
}
"""New heads by `model.detector`."""


def _smallest_anchor(config: HeadConfig) -> float:
    """Side of the smallest anchor in canvas pixels: a sixteenth of the canvas, at least 20.

    Objects that span one cell of their map are located, but hardly classified.
    """
    return max(config.image_size / 16, 20)


def _anchors(config: HeadConfig, scales: tuple[float, ...]) -> AnchorGenerator:
    """Anchors of three shapes and these scales, twice as large on each next level."""
    base = _smallest_anchor(config)
    sizes = tuple(tuple(base * 2**level * scale for scale in scales) for level in range(LEVELS))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * LEVELS)


def _resize_to_stride(features: Tensor, pictures: Tensor, stride: int) -> Tensor:
    """Resize a map (N, C, H, W) to exactly its stride.

    Inception's convolutions have no padding, so its maps come out too small.
    """
    size = (pictures.shape[-2] // stride, pictures.shape[-1] // stride)
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size, mode="bilinear", align_corners=False)
