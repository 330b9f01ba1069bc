"""Heads: torchvision's detectors from the feature pyramid on.

Backbone, neck and resizing stay outside, since the canvas is fixed. Every head has three steps:

1. `outputs` runs the head's convolutions on the pyramid, in the precision of autocast.
2. In training, `static_losses` computes from these outputs what has the same shapes for every
   batch, and `losses` computes the rest. A head that looks at all anchors has nothing left then.
3. Else `detections` gives the boxes of each picture.

Shapes: N pictures, A anchors, K classes. After `outputs` everything is fp32. Labels are 1 to K. A
head that has an output for 0, the background, trains it to be low and never detects it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from .losses import fcos_losses, retinanet_losses, ssd_losses
from .matching import INSIDE_FRACTION, BatchTargets, Targets, inside_any

SCORE_THRESHOLD = 0.02
"""Detections below are dropped before NMS. It is low, since AP counts the complete curve."""
DEFAULT_DETECTIONS = 100
"""Most detections of a picture by default, as COCO evaluates."""
ROI_LOSSES = ("loss_classifier", "loss_box_reg")
"""Faster R-CNN's losses of its proposals' classes and boxes, by torchvision's names."""

Features = OrderedDict[str, Tensor]
"""A feature pyramid: level name to map (N, C, H, W)."""
Detections = list[dict[str, Tensor]]
"""Of each picture `boxes` (n, 4) in canvas pixels, `labels` (n,) and `scores` (n,), best first."""
Detect = Callable[[Tensor], Detections]
"""Anything that detects like a `Detector` in eval mode: takes uint8 pictures (N, 3, S, S)."""


@dataclass(frozen=True)
class HeadOutputs:
    """What a head's convolutions make of a pyramid; its shapes do not depend on the data."""

    tensors: dict[str, Tensor]
    """In fp32, by torchvision's names, such as `cls_logits` (N, A, K + 1)."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of the pyramid's levels."""


class _DenseHead:
    """What RetinaNet, FCOS and SSD have in common: convolutions, and anchors at every place."""

    head: Any
    anchor_generator: Any
    _cached_anchors: tuple[object, Tensor] | None = None
    """The anchors of training, after what they depend on."""

    def outputs(self, features: Features) -> HeadOutputs:
        """Run the convolutions on a pyramid."""
        outputs = self.head(list(features.values()))
        return HeadOutputs({name: out.float() for name, out in outputs.items()}, _sizes(features))

    def anchors(self, outputs: HeadOutputs, images: ImageList) -> list[Tensor]:
        """The anchors (A, 4) of each picture."""
        any_output = next(iter(outputs.tensors.values()))
        levels = [any_output.new_empty(1, 1, *size) for size in outputs.sizes]
        anchors: list[Tensor] = self.anchor_generator(images, levels)
        return anchors

    def training_anchors(self, outputs: HeadOutputs, pictures: Tensor) -> Tensor:
        """The anchors (A, 4), which are the same for every picture of one size.

        They are cached: torchvision computes them at each step, partly on the host, and a GPU would
        wait for that.
        """
        key = (pictures.device, pictures.shape[-2:], outputs.sizes)
        if self._cached_anchors is None or self._cached_anchors[0] != key:
            self._cached_anchors = key, self.anchors(outputs, _image_list(pictures[:1]))[0]
        return self._cached_anchors[1]

    def losses(
        self, static: dict[str, Tensor], pictures: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """The losses, all of which `static_losses` has computed."""
        return static


class _LevelHead(_DenseHead):
    """What RetinaNet and FCOS have in common: the best of each level are looked at."""

    postprocess_detections: Any

    def detections(self, outputs: HeadOutputs, pictures: Tensor) -> Detections:
        """The boxes of each picture, after NMS."""
        images = _image_list(pictures)
        per_place = self.anchor_generator.num_anchors_per_location()[0]  # the same on all levels
        counts = [height * width * per_place for height, width in outputs.sizes]
        tensors = dict(outputs.tensors)
        tensors["cls_logits"] = tensors["cls_logits"][..., 1:]  # (N, A, K), without the background
        detections: Detections = self.postprocess_detections(
            {name: list(torch.split(output, counts, dim=1)) for name, output in tensors.items()},
            [list(torch.split(anchors, counts)) for anchors in self.anchors(outputs, images)],
            images.image_sizes,
        )
        return [{**picture, "labels": picture["labels"] + 1} for picture in detections]


class RetinaNetFromPyramid(_LevelHead, RetinaNet):  # type: ignore[misc]
    """torchvision's RetinaNet: focal loss on anchors.

    `box_weight` is a factor of the box loss, `nms` the IoU threshold of NMS. The defaults are
    torchvision's.
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
        )
        self.box_weight = box_weight

    def static_losses(
        self, outputs: HeadOutputs, pictures: Tensor, targets: BatchTargets
    ) -> dict[str, Tensor]:
        """All losses, see `retinanet_losses`."""
        losses = retinanet_losses(
            targets,
            outputs.tensors,
            self.training_anchors(outputs, pictures),
            background_below=self.proposal_matcher.low_threshold,
            foreground_from=self.proposal_matcher.high_threshold,
            box_loss=self.head.regression_head._loss_type,
        )
        return losses | {"bbox_regression": self.box_weight * losses["bbox_regression"]}


class FCOSFromPyramid(_LevelHead, FCOS):  # type: ignore[misc]
    """torchvision's FCOS: points instead of anchors, and how central each is in its box."""

    def __init__(self, head: nn.Module, points: AnchorGenerator, classes: int) -> None:
        super().__init__(
            NoBackbone(),
            classes + 1,
            anchor_generator=points,
            head=head,
            score_thresh=SCORE_THRESHOLD,
        )

    def static_losses(
        self, outputs: HeadOutputs, pictures: Tensor, targets: BatchTargets
    ) -> dict[str, Tensor]:
        """All losses, see `fcos_losses`."""
        return fcos_losses(
            targets,
            outputs.tensors,
            self.training_anchors(outputs, pictures),
            levels=[height * width for height, width in outputs.sizes],
            radius=self.center_sampling_radius,
        )


class SSDFromPyramid(_DenseHead, SSD):  # type: ignore[misc]
    """torchvision's SSD: a softmax on default boxes, trained on little of the background."""

    def __init__(self, head: nn.Module, boxes: DefaultBoxGenerator, nms: float = 0.45) -> None:
        super().__init__(
            NoBackbone(),
            boxes,
            size=(0, 0),  # only torchvision's resizing reads it
            num_classes=0,  # only a head that torchvision builds reads it
            head=head,
            score_thresh=SCORE_THRESHOLD,
            nms_thresh=nms,
        )

    def static_losses(
        self, outputs: HeadOutputs, pictures: Tensor, targets: BatchTargets
    ) -> dict[str, Tensor]:
        """All losses, see `ssd_losses`."""
        return ssd_losses(
            targets,
            outputs.tensors,
            self.training_anchors(outputs, pictures),
            foreground_from=self.proposal_matcher.high_threshold,
            negatives=self.neg_to_pos_ratio,
            scales=self.box_coder.weights,
        )

    def detections(self, outputs: HeadOutputs, pictures: Tensor) -> Detections:
        """The boxes of each picture, after NMS."""
        images = _image_list(pictures)
        boxes = self.anchors(outputs, images)
        detections: Detections = self.postprocess_detections(
            outputs.tensors, boxes, images.image_sizes
        )
        return detections


class FasterRCNNFromPyramid(nn.Module):
    """torchvision's Faster R-CNN: proposals, then a class and a box for each."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.rpn = IgnoringRPN(model.rpn)
        self.roi_heads = model.roi_heads
        self.roi_heads.score_thresh = SCORE_THRESHOLD

    @property
    def detections_per_img(self) -> int:
        """Most detections of a picture, by the name that the other heads have for it."""
        most: int = self.roi_heads.detections_per_img
        return most

    def outputs(self, features: Features) -> HeadOutputs:
        """The pyramid itself: all that follows depends on the number of proposals."""
        return HeadOutputs({name: m.float() for name, m in features.items()}, _sizes(features))

    def static_losses(
        self, outputs: HeadOutputs, pictures: Tensor, targets: BatchTargets
    ) -> dict[str, Tensor]:
        """The pyramid alone, from which `losses` goes on: no loss of this head has fixed shapes."""
        return outputs.tensors

    def losses(
        self, static: dict[str, Tensor], pictures: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """The losses of proposals and boxes; `static` is the pyramid of N pictures or more."""
        features = OrderedDict((name, m[: len(pictures)]) for name, m in static.items())
        images = _image_list(pictures)
        proposals, rpn_losses = self.rpn(images, features, targets)
        proposals = [
            _drop_ignored(boxes, target) for boxes, target in zip(proposals, targets, strict=True)
        ]
        roi_losses: dict[str, Tensor]
        if any(len(p) + len(t["boxes"]) for p, t in zip(proposals, targets, strict=True)):
            _, roi_losses = self.roi_heads(features, proposals, images.image_sizes, targets)
        else:  # the mean over no box would be NaN
            roi_losses = dict.fromkeys(ROI_LOSSES, 0.0 * rpn_losses["loss_objectness"])
        return {**rpn_losses, **roi_losses}

    def detections(self, outputs: HeadOutputs, pictures: Tensor) -> Detections:
        """The boxes of each picture, after NMS."""
        features, images = OrderedDict(outputs.tensors), _image_list(pictures)
        proposals, _ = self.rpn(images, features, None)
        detections: Detections
        detections, _ = self.roi_heads(features, proposals, images.image_sizes, None)
        return detections


class IgnoringRPN(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's region proposal network, without background from ignored boxes."""

    def __init__(self, rpn: RegionProposalNetwork) -> None:
        super().__init__(
            rpn.anchor_generator,
            rpn.head,
            rpn.proposal_matcher.high_threshold,
            rpn.proposal_matcher.low_threshold,
            rpn.fg_bg_sampler.batch_size_per_image,
            rpn.fg_bg_sampler.positive_fraction,
            rpn._pre_nms_top_n,
            rpn._post_nms_top_n,
            rpn.nms_thresh,
            rpn.score_thresh,
        )

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: Targets
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label each picture's anchors: 1 object, 0 background, -1 neither; and match their boxes.

        Background becomes -1 where an anchor matches an ignored box or lies in one.
        """
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            if "ignored" in target:
                ignored = target["ignored"]
                (as_object,), _ = super().assign_targets_to_anchors([anchor], [{"boxes": ignored}])
                excluded = (as_object != 0) | inside_any(ignored, anchor)
                label[(label == 0) & excluded] = -1
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], offsets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Losses of objectness and boxes as torchvision's; 0 where no anchor is labelled."""
        if not any((label >= 0).any() for label in labels):  # the mean over none would be NaN
            return 0.0 * objectness.sum(), 0.0 * deltas.sum()
        losses: tuple[Tensor, Tensor] = super().compute_loss(objectness, deltas, labels, offsets)
        return losses


def _drop_ignored(proposals: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Drop proposals (P, 4) that lie in ignored boxes, unless they overlap an object."""
    if "ignored" not in target:
        return proposals
    has_object = (box_iou(target["boxes"], proposals) >= INSIDE_FRACTION).any(dim=0)
    return proposals[has_object | ~inside_any(target["ignored"], proposals)]


Head = RetinaNetFromPyramid | FCOSFromPyramid | FasterRCNNFromPyramid | SSDFromPyramid


def limit_detections(head: Head, detections: int) -> None:
    """Set how many detections of a picture a head gives at most.

    The number of candidates before NMS grows with it, from torchvision's for 100 detections.
    """
    factor = max(1.0, detections / DEFAULT_DETECTIONS)
    if isinstance(head, FasterRCNNFromPyramid):
        head.roi_heads.detections_per_img = detections
        for limits in (head.rpn._pre_nms_top_n, head.rpn._post_nms_top_n):
            limits["testing"] = round(factor * limits["testing"])
    else:
        head.detections_per_img = detections
        head.topk_candidates = round(factor * head.topk_candidates)


def _sizes(features: Features) -> tuple[tuple[int, int], ...]:
    return tuple((m.shape[-2], m.shape[-1]) for m in features.values())


def _image_list(pictures: Tensor) -> ImageList:
    size = (pictures.shape[-2], pictures.shape[-1])
    return ImageList(pictures, [size] * len(pictures))


class NoBackbone(nn.Module):
    """Stands for a backbone, since torchvision's constructors ask one for its channels."""

    def __init__(self, channels: int = 0) -> None:
        super().__init__()
        self.out_channels = channels
