"""torchvision's detectors from the feature pyramid on: what is learned and what is found there.

Backbone, neck and resizing stay outside, since the canvas is fixed. All are used alike: `outputs`
of the pyramid (levels by name, finest first), and of these and the uint8 pictures (N, 3, S, S) the
`detections` or, with what is true of the batch, whatever is computed `alike` for every batch; of
that and each picture's targets, last, the `losses`. Heads that look at all anchors have their
losses alike. All are fp32. Labels are 1 to K; where a head has an output for 0, the background, it
is trained to be low and never detected.
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

from .losses import INSIDE, Targets, Truth, fcos_losses, lie_in, retinanet_losses, ssd_losses

SCORE_THRESHOLD = 0.02
"""Detections below are dropped before NMS: low, for AP counts the whole curve."""
DETECTIONS = 100
"""Detections a picture at most where nothing else is said, as COCO evaluates."""
OF_BOXES = ("loss_classifier", "loss_box_reg")
"""Faster R-CNN's losses of its proposals' classes and boxes, as torchvision names them."""

Features = OrderedDict[str, Tensor]
Detections = list[dict[str, Tensor]]
Detect = Callable[[Tensor], Detections]
"""Something that detects as a `Detector` in eval mode: uint8 pictures (N, 3, S, S) in."""


@dataclass(frozen=True)
class Outputs:
    """What a head makes of the pyramid, up to where it looks at boxes: of fixed shapes."""

    tensors: dict[str, Tensor]
    """In fp32, by torchvision's names."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width of the pyramid's levels."""


class _Dense:
    """What RetinaNet, FCOS and SSD have in common: a head of convolutions, and anchors."""

    head: Any
    anchor_generator: Any
    _kept: tuple[object, Tensor] | None = None

    def outputs(self, features: Features) -> Outputs:
        """What the convolutions give for a pyramid."""
        found = self.head(list(features.values()))
        sizes = tuple((m.shape[-2], m.shape[-1]) for m in features.values())
        return Outputs({name: out.float() for name, out in found.items()}, sizes)

    def anchors(self, outputs: Outputs, images: ImageList) -> list[Tensor]:
        """Those (A, 4) of each picture."""
        any_of_them = next(iter(outputs.tensors.values()))
        levels = [any_of_them.new_empty(1, 1, *size) for size in outputs.sizes]
        found: list[Tensor] = self.anchor_generator(images, levels)
        return found

    def kept_anchors(self, outputs: Outputs, pictures: Tensor) -> Tensor:
        """Those of any picture for training, kept: torchvision makes them anew at each step, some
        of them on the host, for which a GPU would wait."""
        wanted = (pictures.device, pictures.shape[-2:], outputs.sizes)
        if self._kept is None or self._kept[0] != wanted:
            self._kept = wanted, self.anchors(outputs, _image_list(pictures[:1]))[0]
        return self._kept[1]

    def losses(
        self, found: dict[str, Tensor], pictures: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        return found


class RetinaNetFromPyramid(_Dense, RetinaNet):  # type: ignore[misc]
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
        )
        self.box_weight = box_weight

    def alike(self, outputs: Outputs, pictures: Tensor, truth: Truth) -> dict[str, Tensor]:
        found = retinanet_losses(
            truth,
            outputs.tensors,
            self.kept_anchors(outputs, pictures),
            background_below=self.proposal_matcher.low_threshold,
            foreground_from=self.proposal_matcher.high_threshold,
            box_loss=self.head.regression_head._loss_type,
        )
        return found | {"bbox_regression": self.box_weight * found["bbox_regression"]}

    def detections(self, outputs: Outputs, pictures: Tensor) -> Detections:
        places = self.anchor_generator.num_anchors_per_location()[0]
        return _detect_by_level(self, outputs, places, pictures)


class FCOSFromPyramid(_Dense, FCOS):  # type: ignore[misc]
    """torchvision's FCOS: no anchors, but points and how central they are."""

    def __init__(self, head: nn.Module, points: AnchorGenerator, classes: int) -> None:
        super().__init__(
            NoBackbone(),
            classes + 1,
            anchor_generator=points,
            head=head,
            score_thresh=SCORE_THRESHOLD,
        )

    def alike(self, outputs: Outputs, pictures: Tensor, truth: Truth) -> dict[str, Tensor]:
        return fcos_losses(
            truth,
            outputs.tensors,
            self.kept_anchors(outputs, pictures),
            levels=[height * width for height, width in outputs.sizes],
            radius=self.center_sampling_radius,
        )

    def detections(self, outputs: Outputs, pictures: Tensor) -> Detections:
        return _detect_by_level(self, outputs, 1, pictures)


class FasterRCNNFromPyramid(nn.Module):
    """torchvision's Faster R-CNN: proposals, then a class and a box for each."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.rpn = Proposals(model.rpn)
        self.roi_heads = model.roi_heads
        self.roi_heads.score_thresh = SCORE_THRESHOLD

    @property
    def detections_per_img(self) -> int:
        most: int = self.roi_heads.detections_per_img
        return most

    def outputs(self, features: Features) -> Outputs:
        """The pyramid itself: all further is of proposals, of which nobody knows how many."""
        sizes = tuple((m.shape[-2], m.shape[-1]) for m in features.values())
        return Outputs({name: m.float() for name, m in features.items()}, sizes)

    def alike(self, outputs: Outputs, pictures: Tensor, truth: Truth) -> dict[str, Tensor]:
        return outputs.tensors

    def losses(
        self, found: dict[str, Tensor], pictures: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        features = OrderedDict((name, m[: len(pictures)]) for name, m in found.items())
        images = _image_list(pictures)
        proposals, of_proposals = self.rpn(images, features, targets)
        proposals = [_to_learn(own, t) for own, t in zip(proposals, targets, strict=True)]
        of_boxes: dict[str, Tensor]
        if any(len(own) + len(t["boxes"]) for own, t in zip(proposals, targets, strict=True)):
            _, of_boxes = self.roi_heads(features, proposals, images.image_sizes, targets)
        else:  # the mean over none would be NaN
            of_boxes = dict.fromkeys(OF_BOXES, 0.0 * of_proposals["loss_objectness"])
        return {**of_proposals, **of_boxes}

    def detections(self, outputs: Outputs, pictures: Tensor) -> Detections:
        features, images = OrderedDict(outputs.tensors), _image_list(pictures)
        proposals, _ = self.rpn(images, features, None)
        found: Detections
        found, _ = self.roi_heads(features, proposals, images.image_sizes, None)
        return found


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's, that learns no background from anchors in ignored boxes."""

    def __init__(self, of: RegionProposalNetwork) -> None:
        super().__init__(
            of.anchor_generator,
            of.head,
            of.proposal_matcher.high_threshold,
            of.proposal_matcher.low_threshold,
            of.fg_bg_sampler.batch_size_per_image,
            of.fg_bg_sampler.positive_fraction,
            of._pre_nms_top_n,
            of._post_nms_top_n,
            of.nms_thresh,
            of.score_thresh,
        )

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: Targets
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for own, each, target in zip(labels, anchors, targets, strict=True):
            if "ignored" in target:
                ignored = target["ignored"]
                (found,), _ = super().assign_targets_to_anchors([each], [{"boxes": ignored}])
                own[(own == 0) & ((found != 0) | lie_in(ignored, each))] = -1
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], offsets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if not any((own >= 0).any() for own in labels):  # the mean over none would be NaN
            return 0.0 * objectness.sum(), 0.0 * deltas.sum()
        losses: tuple[Tensor, Tensor] = super().compute_loss(objectness, deltas, labels, offsets)
        return losses


def _to_learn(proposals: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Without those in ignored boxes, unless an object has them; objects themselves come later."""
    if "ignored" not in target:
        return proposals
    has_object = (box_iou(target["boxes"], proposals) >= INSIDE).any(dim=0)
    return proposals[has_object | ~lie_in(target["ignored"], proposals)]


class SSDFromPyramid(_Dense, SSD):  # type: ignore[misc]
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
        )

    def alike(self, outputs: Outputs, pictures: Tensor, truth: Truth) -> dict[str, Tensor]:
        return ssd_losses(
            truth,
            outputs.tensors,
            self.kept_anchors(outputs, pictures),
            foreground_from=self.proposal_matcher.high_threshold,
            negatives=self.neg_to_pos_ratio,
            scales=self.box_coder.weights,
        )

    def detections(self, outputs: Outputs, pictures: Tensor) -> Detections:
        images = _image_list(pictures)
        boxes = self.anchors(outputs, images)
        found: Detections = self.postprocess_detections(outputs.tensors, boxes, images.image_sizes)
        return found


Head = RetinaNetFromPyramid | FCOSFromPyramid | FasterRCNNFromPyramid | SSDFromPyramid


def find_at_most(head: Head, detections: int) -> None:
    """Set how many boxes of a picture a head finds, and how many it looks at before NMS: as many
    for each as torchvision does where it finds 100, and never fewer in all."""
    share = max(1.0, detections / DETECTIONS)
    if isinstance(head, FasterRCNNFromPyramid):
        head.roi_heads.detections_per_img = detections
        for most in (head.rpn._pre_nms_top_n, head.rpn._post_nms_top_n):
            most["testing"] = round(share * most["testing"])
    else:
        head.detections_per_img = detections
        head.topk_candidates = round(share * head.topk_candidates)


def _detect_by_level(
    detector: RetinaNetFromPyramid | FCOSFromPyramid,
    outputs: Outputs,
    places: int,
    pictures: Tensor,
) -> Detections:
    """With `places` anchors in each place of a map."""
    images = _image_list(pictures)
    counts = [height * width * places for height, width in outputs.sizes]
    tensors = dict(outputs.tensors)
    tensors["cls_logits"] = tensors["cls_logits"][..., 1:]  # 0 is the background: no class
    found: Detections = detector.postprocess_detections(
        {name: list(torch.split(output, counts, dim=1)) for name, output in tensors.items()},
        [list(torch.split(own, counts)) for own in detector.anchors(outputs, images)],
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
