"""torchvision's detectors from the feature pyramid on: what is learned and what is found there.

Backbone, neck and resizing stay outside, since the canvas is fixed. All are called alike: with the
pyramid (levels by name, finest first), the uint8 pictures (N, 3, S, S) that it is of and, in
training, their targets. Losses, box decoding and NMS run in fp32. Labels are 1 to K; where a head
has an output for 0, the background, it is trained to be low and never detected.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from .losses import Targets, fcos_losses, retinanet_losses

SCORE_THRESHOLD = 0.02
"""Detections below are dropped before NMS: low, for AP counts the whole curve."""
DETECTIONS = 100
"""Detections a picture at most, as COCO evaluates."""

Features = OrderedDict[str, Tensor]
Detections = list[dict[str, Tensor]]
Detect = Callable[[Tensor], Detections]
"""Something that detects as a `Detector` in eval mode: uint8 pictures (N, 3, S, S) in."""


class RetinaNetFromPyramid(RetinaNet):  # type: ignore[misc]
    """torchvision's RetinaNet: focal loss on anchors.

    `box_weight` is a factor of the box loss, `nms` the IoU above which a detection
    gives way to a better one of its class; by default both are torchvision's.
    """

    def __init__(
        self,
        head: nn.Module,
        anchors: AnchorGenerator,
        classes: int,
        box_weight: float = 1.0,
        nms: float = 0.5,
    ) -> None:
        super().__init__(
            NoBackbone(),
            classes + 1,
            anchor_generator=anchors,
            head=head,
            score_thresh=SCORE_THRESHOLD,
            nms_thresh=nms,
            detections_per_img=DETECTIONS,
        )
        self.box_weight = box_weight

    def forward(
        self, features: Features, pictures: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | Detections:
        levels = [level.float() for level in features.values()]
        images = _image_list(pictures)
        outputs = {n: out.float() for n, out in self.head(list(features.values())).items()}
        anchors = self.anchor_generator(images, levels)
        with torch.autocast(pictures.device.type, enabled=False):
            if targets is not None:
                losses = retinanet_losses(
                    targets,
                    outputs,
                    anchors[0],
                    background_below=self.proposal_matcher.low_threshold,
                    foreground_from=self.proposal_matcher.high_threshold,
                    box_loss=self.head.regression_head._loss_type,
                )
                return losses | {"bbox_regression": self.box_weight * losses["bbox_regression"]}
            places = self.anchor_generator.num_anchors_per_location()[0]
            sizes = [m.shape[-2] * m.shape[-1] * places for m in levels]
            return _detect_by_level(self, outputs, anchors, sizes, images)


class FCOSFromPyramid(FCOS):  # type: ignore[misc]
    """torchvision's FCOS: no anchors, but points and how central they are."""

    def __init__(self, head: nn.Module, points: AnchorGenerator, classes: int) -> None:
        super().__init__(
            NoBackbone(),
            classes + 1,
            anchor_generator=points,
            head=head,
            score_thresh=SCORE_THRESHOLD,
            detections_per_img=DETECTIONS,
        )
        head.compute_loss = fcos_losses  # type: ignore[assignment]  # what FCOS's own loss ends in

    def forward(
        self, features: Features, pictures: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | Detections:
        levels = [level.float() for level in features.values()]
        images = _image_list(pictures)
        outputs = {n: out.float() for n, out in self.head(list(features.values())).items()}
        points = self.anchor_generator(images, levels)
        sizes = [m.shape[-2] * m.shape[-1] for m in levels]
        with torch.autocast(pictures.device.type, enabled=False):
            if targets is not None:
                losses: dict[str, Tensor] = self.compute_loss(targets, outputs, points, sizes)
                return losses
            return _detect_by_level(self, outputs, points, sizes, images)


class FasterRCNNFromPyramid(nn.Module):
    """torchvision's Faster R-CNN: proposals, then a class and a box for each."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.rpn = model.rpn
        self.roi_heads = model.roi_heads
        self.roi_heads.score_thresh = SCORE_THRESHOLD
        self.roi_heads.detections_per_img = DETECTIONS

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


class SSDFromPyramid(SSD):  # type: ignore[misc]
    """torchvision's SSD: a softmax on default boxes, most of the background left out."""

    def __init__(self, head: nn.Module, boxes: DefaultBoxGenerator, nms: float = 0.45) -> None:
        super().__init__(
            NoBackbone(),
            boxes,
            size=(0, 0),  # of the transform, which is not used
            num_classes=0,  # of a head made there, which is not
            head=head,
            score_thresh=SCORE_THRESHOLD,
            nms_thresh=nms,
            detections_per_img=DETECTIONS,
        )

    def forward(
        self, features: Features, pictures: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | Detections:
        levels = [level.float() for level in features.values()]
        images = _image_list(pictures)
        outputs = {n: out.float() for n, out in self.head(list(features.values())).items()}
        boxes = self.anchor_generator(images, levels)
        with torch.autocast(pictures.device.type, enabled=False):
            if targets is None:
                found: Detections = self.postprocess_detections(outputs, boxes, images.image_sizes)
                return found
            matches = [self._match(t["boxes"], own) for t, own in zip(targets, boxes, strict=True)]
            losses: dict[str, Tensor] = self.compute_loss(targets, outputs, boxes, matches)
            return losses

    def _match(self, truth: Tensor, boxes: Tensor) -> Tensor:
        """For each default box the true box that it is to find, -1 for none."""
        if not len(truth):
            return torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
        matches: Tensor = self.proposal_matcher(box_iou(truth, boxes))
        return matches


def _detect_by_level(
    detector: RetinaNet | FCOS,
    outputs: dict[str, Tensor],
    anchors: list[Tensor],
    sizes: list[int],
    images: ImageList,
) -> Detections:
    outputs["cls_logits"] = outputs["cls_logits"][..., 1:]  # 0 is the background: no class
    found: Detections = detector.postprocess_detections(
        {name: list(torch.split(output, sizes, dim=1)) for name, output in outputs.items()},
        [list(torch.split(own, sizes)) for own in anchors],
        images.image_sizes,
    )
    return [{**own, "labels": own["labels"] + 1} for own in found]


def _image_list(pictures: Tensor) -> ImageList:
    size = (pictures.shape[-2], pictures.shape[-1])
    return ImageList(pictures, [size] * len(pictures))


class NoBackbone(nn.Module):
    """Tells torchvision's constructors the channels of the pyramid, which is made outside."""

    def __init__(self, channels: int = 0) -> None:
        super().__init__()
        self.out_channels = channels
