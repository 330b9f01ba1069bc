"""Detectors: a pretrained backbone, a new neck, a new head of torchvision's.

The head classes are torchvision's own detectors from the feature pyramid on; their backbone and
their resizing stay outside, since the canvas is fixed. Losses, box decoding and NMS run in fp32.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ..config import Model
from . import backbones
from .backbones import STRIDES, Pixels
from .freezing import Stage

CHANNELS = 96
"""Channels of neck and head. Torchvision's heads have 256; half of that with its 4 convolutions a
branch already learnt slower a head epoch on 205 pictures, and cost about twice as much a step
(`benchmarks/head.py` compares them)."""
BRANCH_CONVS = 2
"""Convolutions of RetinaNet's two branches, of torchvision's 4: for the same reason."""
LEVELS = 5
"""Levels of the neck: strides 8 to 128."""
SCORE_THRESHOLD = 0.02
"""Detections below are dropped before NMS: low, for AP counts the whole curve."""
DETECTIONS = 100
"""Detections a picture at most, as COCO evaluates."""

Features = OrderedDict[str, Tensor]
Targets = list[dict[str, Tensor]]
Detections = list[dict[str, Tensor]]


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
    training; else per picture `boxes`, `labels` and `scores`, best first.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        stages: list[Stage],
        pixels: Pixels,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.stages = stages
        self.pixels = pixels
        mean = 255 * torch.tensor(pixels.mean).reshape(1, 3, 1, 1)
        std = 255 * torch.tensor(pixels.std).reshape(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def features(self, pictures: Tensor) -> Features:
        """The feature pyramid of uint8 pictures, finest level first."""
        pixels = (pictures.to(self.mean.dtype) - self.mean) / self.std
        maps = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        maps = [_at_stride(m, pictures, s) for m, s in zip(maps, STRIDES, strict=True)]
        pyramid: Features = self.neck(OrderedDict((str(i), m) for i, m in enumerate(maps)))
        return pyramid

    def forward(
        self, pictures: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | Detections:
        features = self.features(pictures)
        outcome: dict[str, Tensor] | Detections = self.head(features, pictures, targets)
        return outcome


class RetinaNetFromPyramid(RetinaNet):  # type: ignore[misc]
    """torchvision's RetinaNet without backbone and transform: the pyramid comes in."""

    def __init__(self, shape: Shape) -> None:
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
        super().__init__(
            _NoBackbone(),
            shape.classes + 1,
            anchor_generator=anchors,
            head=head,
            score_thresh=SCORE_THRESHOLD,
            detections_per_img=DETECTIONS,
        )

    def forward(
        self, features: Features, pictures: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | Detections:
        levels = [level.float() for level in features.values()]
        images = _image_list(pictures)
        outputs = {n: out.float() for n, out in self.head(list(features.values())).items()}
        anchors = self.anchor_generator(images, levels)
        with torch.autocast(pictures.device.type, enabled=False):
            if targets is not None:
                losses: dict[str, Tensor] = self.compute_loss(targets, outputs, anchors)
                return losses
            sizes = [m.shape[-2] * m.shape[-1] * self._anchors_a_place for m in levels]
            outputs["cls_logits"] = outputs["cls_logits"][..., 1:]  # 0 is the background: no class
            detections: Detections = self.postprocess_detections(
                {name: list(output.split(sizes, dim=1)) for name, output in outputs.items()},
                [list(a.split(sizes)) for a in anchors],
                images.image_sizes,
            )
        return [{**found, "labels": found["labels"] + 1} for found in detections]

    @property
    def _anchors_a_place(self) -> int:
        return int(self.anchor_generator.num_anchors_per_location()[0])


class FasterRCNNFromPyramid(FasterRCNN):  # type: ignore[misc]
    """torchvision's Faster R-CNN without backbone and transform: the pyramid comes in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(
            _NoBackbone(),
            shape.classes + 1,
            rpn_anchor_generator=_anchors(shape, scales=(1, sqrt(2))),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2),
            box_score_thresh=SCORE_THRESHOLD,
            box_detections_per_img=DETECTIONS,
        )

    def forward(
        self, features: Features, pictures: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | Detections:
        images = _image_list(pictures)
        with torch.autocast(pictures.device.type, enabled=False):
            features = OrderedDict((name, m.float()) for name, m in features.items())
            proposals, rpn_losses = self.rpn(images, features, targets)
            detections, box_losses = self.roi_heads(
                features, proposals, images.image_sizes, targets
            )
        outcome: dict[str, Tensor] | Detections = (
            detections if targets is None else rpn_losses | box_losses
        )
        return outcome


HEADS: dict[str, Callable[[Shape], nn.Module]] = {
    "retinanet": RetinaNetFromPyramid,
    "faster_rcnn": FasterRCNNFromPyramid,
}


def build(model: Model, classes: int) -> Detector:
    """Build a detector for that many classes with its pretrained backbone.

    New weights come from torch's global generator: seed it first. Raises BadInput like
    `backbones.build`.
    """
    detector = assemble(model, backbones.build(model.backbone, model.weights), classes)
    exported = Path(model.weights) / backbones.WEIGHTS
    if exported.is_file():  # to go on from an earlier winner: whatever fits of its neck and head
        own = detector.state_dict()
        fits = {
            n: t for n, t in load_file(exported).items() if n in own and own[n].shape == t.shape
        }
        detector.load_state_dict(fits, strict=False)
    return detector


def assemble(model: Model, backbone: backbones.Backbone, classes: int) -> Detector:
    """A new neck and head on a backbone."""
    neck = FeaturePyramidNetwork(
        list(backbone.channels), CHANNELS, extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS)
    )
    head = HEADS[model.detector](Shape(classes, model.image_size))
    detector = Detector(backbone.module, neck, head, backbone.stages, backbone.pixels)
    detector.to(memory_format=torch.channels_last)
    return detector


def _anchors(shape: Shape, scales: tuple[float, ...]) -> AnchorGenerator:
    """Anchors of a sixteenth of the canvas at the finest level, doubling a level; on a small canvas
    of 20 pixels at least: objects that span one cell of their map are located but hardly named."""
    base = max(shape.image_size / 16, 20)
    sizes = tuple(tuple(base * 2**level * scale for scale in scales) for level in range(LEVELS))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * LEVELS)


def _at_stride(features: Tensor, pictures: Tensor, stride: int) -> Tensor:
    """A map at exactly its stride; Inception's unpadded convolutions leave theirs too small."""
    size = (pictures.shape[-2] // stride, pictures.shape[-1] // stride)
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size, mode="bilinear", align_corners=False)


def _image_list(pictures: Tensor) -> ImageList:
    size = (pictures.shape[-2], pictures.shape[-1])
    return ImageList(pictures, [size] * len(pictures))


class _NoBackbone(nn.Module):
    """Tells torchvision the channels; the pyramid is made outside."""

    out_channels = CHANNELS
