"""A detector as one graph of fixed shapes but for the batch size, for files that others run.

torchvision's own post-processing loops over pictures and keeps as many boxes as it finds, which
neither `torch.export` nor ONNX can trace. Here it is whole-batch tensor operations with the same
result: candidates of every picture, one NMS for all, the best of each picture.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import nms, roi_align

from ..config import BadInput
from ..model.detectors import Detector
from ..model.heads import SCORE_THRESHOLD, FasterRCNNFromPyramid, Features

Candidates = tuple[Tensor, Tensor, Tensor]
"""Boxes (N, M, 4) as x1, y1, x2, y2 in canvas pixels, scores (N, M), labels (N, M) from 1."""
ABSENT = -1.0
"""Score of a place in a list that holds no box."""


class Graph(nn.Module):
    """Canvases (N, S, S, 3) uint8 RGB in; out come boxes (N, D, 4) as x1, y1, x2, y2 in canvas
    pixels, labels (N, D) from 1 and scores (N, D), best first, filled up with zeros. D is the
    `model.detections` of the detector, or all of its candidates, where these are fewer."""

    def __init__(self, detector: Detector, candidates: nn.Module, iou: float) -> None:
        super().__init__()
        self.detector = detector
        self.candidates = candidates
        self.iou = iou
        self.most: int = detector.head.detections_per_img

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.detector.features(pictures.permute(0, 3, 1, 2))
        boxes, scores, labels = self.candidates(features)
        size = pictures.shape[1]
        scores = torch.where(scores > SCORE_THRESHOLD, scores, ABSENT)
        scores, best = keep_best(boxes, scores, labels, size, self.iou, self.most)
        there = scores > 0
        return (
            torch.where(there[..., None], _rows(boxes, best), 0.0),
            torch.where(there, labels.gather(1, best), 0),
            torch.where(there, scores, 0.0),
        )


def as_graph(detector: Detector, size: int) -> Graph:
    """The graph of a detector in eval mode on the CPU, sharing its weights.

    Raises BadInput for a head that has none.
    """
    make = next((m for head, m in GRAPHS.items() if isinstance(detector.head, head)), None)
    if make is None:
        known = ", ".join(head.__name__.removesuffix("FromPyramid") for head in GRAPHS)
        name = type(detector.head).__name__
        raise BadInput([f"{name} cannot be exported as one file yet (can: {known})"])
    with torch.no_grad():
        features = detector.features(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    candidates = make(detector.head, features, size)
    return Graph(detector, candidates, candidates.iou).eval()


def keep_best(
    boxes: Tensor, scores: Tensor, groups: Tensor, size: int, iou: float, count: int
) -> tuple[Tensor, Tensor]:
    """NMS within each picture and group of (N, M) boxes; then the `count` best of each picture.

    Returns scores, ABSENT where a picture has fewer boxes, and positions among the M.
    """
    pictures = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(groups)
    # one NMS for all: each group has a column and each picture a row of a grid whose cells no box
    # leaves. In both directions, so that coordinates stay small enough for fp32
    cells = torch.stack([groups, pictures, groups, pictures], dim=-1) * (size + 1.0)
    present = (scores.flatten() > 0).nonzero()[:, 0]
    kept = nms((boxes + cells).reshape(-1, 4)[present], scores.flatten()[present], iou)
    mask = torch.zeros_like(scores.flatten()).index_fill(0, present[kept], 1.0)
    left = torch.where(mask.reshape(scores.shape) > 0, scores, ABSENT)
    return left.topk(min(count, left.shape[1]))


class LevelCandidates(nn.Module):
    """Of RetinaNet and FCOS: the best places of each level by class score, decoded."""

    def __init__(self, head: RetinaNet | FCOS, features: Features, size: int) -> None:
        super().__init__()
        self.head = head
        self.iou = head.nms_thresh
        self.size = size
        places = head.anchor_generator.num_anchors_per_location()
        self.sizes, self.anchors = _fixed_anchors(head.anchor_generator, features, places, size)

    def forward(self, features: Features) -> Candidates:
        outputs = self.head.head(list(features.values()))
        scores = outputs["cls_logits"][..., 1:].sigmoid()  # 0 is the background: no class
        if "bbox_ctrness" in outputs:  # FCOS: how central the place is in its box
            scores = (scores * outputs["bbox_ctrness"].sigmoid()).sqrt()
        levels = zip(
            torch.split(scores, self.sizes, dim=1),
            torch.split(outputs["bbox_regression"], self.sizes, dim=1),
            torch.split(self.anchors, self.sizes),
            strict=True,
        )
        found = [self._of_level(*level) for level in levels]
        boxes, best, labels = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return boxes, best, labels

    def _of_level(self, scores: Tensor, regression: Tensor, anchors: Tensor) -> Candidates:
        places, classes = scores.shape[1:]
        best, index = scores.flatten(1).topk(min(self.head.topk_candidates, places * classes))
        place = index // classes
        boxes = _decoded(self.head.box_coder, _rows(regression, place), anchors[place])
        return boxes.clamp(0, self.size), best, index % classes + 1


class SSDCandidates(nn.Module):
    """The best default boxes of each class."""

    def __init__(self, head: SSD, features: Features, size: int) -> None:
        super().__init__()
        self.head = head
        self.iou = head.nms_thresh
        self.size = size
        places = head.anchor_generator.num_anchors_per_location()
        _, self.anchors = _fixed_anchors(head.anchor_generator, features, places, size)

    def forward(self, features: Features) -> Candidates:
        outputs = self.head.head(list(features.values()))
        scores = outputs["cls_logits"].softmax(dim=-1)[..., 1:]  # 0 is the background: no class
        pictures, places, classes = scores.shape
        count = min(self.head.topk_candidates, places)
        best, place = scores.transpose(1, 2).topk(count)
        best, place = best.flatten(1), place.flatten(1)
        regression = _rows(outputs["bbox_regression"], place)
        boxes = _decoded(self.head.box_coder, regression, self.anchors[place])
        labels = torch.arange(1, classes + 1, device=boxes.device).repeat_interleave(count)
        return boxes.clamp(0, self.size), best, labels.expand_as(best)


class FasterRCNNCandidates(nn.Module):
    """Every class's box of every proposal."""

    def __init__(self, head: FasterRCNNFromPyramid, features: Features, size: int) -> None:
        super().__init__()
        self.rpn = head.rpn
        self.roi_heads = head.roi_heads
        self.iou = head.roi_heads.nms_thresh
        self.size = size
        generator = head.rpn.anchor_generator
        places = generator.num_anchors_per_location()
        self.sizes, self.anchors = _fixed_anchors(generator, features, places, size)
        pool = head.roi_heads.box_roi_pool
        pool(  # torchvision works out the scale of each level at the first call
            {name: features[name] for name in features},
            [torch.zeros(1, 4)],
            [(size, size)],
        )

    def forward(self, features: Features) -> Candidates:
        proposals, certainty = self._proposals(features)
        pictures, count = certainty.shape
        there = (certainty.flatten() > 0).nonzero()[:, 0]  # a picture has `count` at most
        rois = proposals.reshape(-1, 4)[there]
        pooled = self._pooled(features, rois, there // count)
        logits, regression = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        scores = logits.softmax(dim=-1)[:, 1:]  # 0 is the background: no class
        classes = scores.shape[1]
        decoded = self.roi_heads.box_coder.decode_single(regression, rois)
        boxes = decoded.reshape(-1, classes + 1, 4)[:, 1:].clamp(0, self.size)
        scores = torch.where(_longer_than(boxes, 1e-2), scores, ABSENT)
        all_scores = scores.new_full((pictures * count, classes), ABSENT)
        all_boxes = boxes.new_zeros((pictures * count, classes, 4))
        all_scores = all_scores.index_copy(0, there, scores).reshape(pictures, -1)
        all_boxes = all_boxes.index_copy(0, there, boxes).reshape(pictures, -1, 4)
        labels = torch.arange(1, classes + 1, device=boxes.device).repeat(count)
        return all_boxes, all_scores, labels.expand_as(all_scores)

    def _proposals(self, features: Features) -> tuple[Tensor, Tensor]:
        """The region proposals (N, P, 4) and how certain each is of an object (N, P)."""
        logits, deltas = self.rpn.head(list(features.values()))
        found = []
        levels = zip(logits, deltas, torch.split(self.anchors, self.sizes), strict=True)
        for number, (logit, delta, anchors) in enumerate(levels):
            # (N, A, H, W) and (N, 4 A, H, W), as anchors go: place by place, then anchor by anchor
            pictures, each, height, width = logit.shape
            certainty = logit.permute(0, 2, 3, 1).reshape(pictures, -1)
            delta = delta.reshape(pictures, each, 4, height, width).permute(0, 3, 4, 1, 2)
            best, index = certainty.topk(min(self.rpn.pre_nms_top_n(), certainty.shape[1]))
            delta = _rows(delta.reshape(pictures, -1, 4), index)
            boxes = _decoded(self.rpn.box_coder, delta, anchors[index])
            found.append(
                (boxes.clamp(0, self.size), best.sigmoid(), torch.full_like(index, number))
            )
        boxes, best, level = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        able = _longer_than(boxes, self.rpn.min_size) & (best >= self.rpn.score_thresh)
        best = torch.where(able, best, ABSENT)
        count = self.rpn.post_nms_top_n()
        best, index = keep_best(boxes, best, level, self.size, self.rpn.nms_thresh, count)
        return _rows(boxes, index), best

    def _pooled(self, features: Features, rois: Tensor, pictures: Tensor) -> Tensor:
        """Features (R, C, 7, 7) of each region from the level that fits its size."""
        pool = self.roi_heads.box_roi_pool
        level = pool.map_levels([rois])
        numbered = torch.cat([pictures[:, None].to(rois.dtype), rois], dim=1)
        # of these names a short pyramid has some
        maps = [features[name] for name in features if name in pool.featmap_names]
        pooled = rois.new_zeros((rois.shape[0], maps[0].shape[1], *pool.output_size))
        for number, (features_of, scale) in enumerate(zip(maps, pool.scales, strict=True)):
            own = (level == number).nonzero()[:, 0]
            part = roi_align(
                features_of,
                numbered[own],
                output_size=pool.output_size,
                spatial_scale=scale,
                sampling_ratio=pool.sampling_ratio,
            )
            pooled = pooled.index_copy(0, own, part)
        return pooled


GRAPHS: dict[type[nn.Module], Callable[..., Any]] = {
    RetinaNet: LevelCandidates,
    FCOS: LevelCandidates,
    SSD: SSDCandidates,
    FasterRCNNFromPyramid: FasterRCNNCandidates,
}
"""By the head's class or one that it is derived from."""


def _fixed_anchors(
    generator: nn.Module, features: Features, places: list[int], size: int
) -> tuple[list[int], Tensor]:
    """How many anchors each level has, and all of them (A, 4): on a fixed canvas constants."""
    maps = list(features.values())
    sizes = [
        each * level.shape[-2] * level.shape[-1] for each, level in zip(places, maps, strict=True)
    ]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)
    return sizes, anchors


def _decoded(coder: BoxCoder | BoxLinearCoder, regression: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (N, M, 4) of regressions and anchors (N, M, 4)."""
    decode = coder.decode_single if isinstance(coder, BoxCoder) else coder.decode
    flat: Tensor = decode(regression.reshape(-1, 4), anchors.reshape(-1, 4))
    return flat.reshape(anchors.shape)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows (N, n, 4) of values (N, M, 4) at positions (N, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, 4))


def _longer_than(boxes: Tensor, least: float) -> Tensor:
    """Which boxes have both sides of at least that many pixels."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= least).all(dim=-1)
