"""A detector as one traceable graph: fixed shapes except for the batch size.

`torch.export` and ONNX cannot trace torchvision's post-processing, which loops over pictures and
keeps a varying number of boxes. Here it is tensor operations on the batch with the same result:
candidates of every picture, one NMS for all, the best of each picture.

Shapes: N pictures, M candidates a picture, A anchors, P proposals a picture, K classes.
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

from ..config import InputError
from ..model.detectors import Detector
from ..model.heads import SCORE_THRESHOLD, FasterRCNNFromPyramid, Features

Candidates = tuple[Tensor, Tensor, Tensor]
"""Boxes (N, M, 4) as x1, y1, x2, y2 in canvas pixels, scores (N, M), labels (N, M) from 1."""
ABSENT = -1.0
"""Score of padding: a place in a list that holds no box."""


class Graph(nn.Module):
    """A detector with fixed-size outputs.

    Takes canvases (N, S, S, 3) uint8 RGB. Returns boxes (N, D, 4) as x1, y1, x2, y2 in canvas
    pixels, labels (N, D) from 1 and scores (N, D), best first, padded with zeros. D is the
    detector's `model.detections`, or the number of its candidates where that is smaller.
    """

    def __init__(self, detector: Detector, candidates: nn.Module, iou: float) -> None:
        super().__init__()
        self.detector = detector
        self.candidates = candidates
        self.iou = iou
        self.most: int = detector.head.detections_per_img

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and scores of each picture, see the class."""
        features = self.detector.features(pictures.permute(0, 3, 1, 2))
        boxes, scores, labels = self.candidates(features)
        size = pictures.shape[1]
        scores = torch.where(scores > SCORE_THRESHOLD, scores, ABSENT)
        scores, best = keep_best(boxes, scores, labels, size, self.iou, self.most)
        is_box = scores > 0  # (N, D)
        return (
            torch.where(is_box[..., None], _rows(boxes, best), 0.0),
            torch.where(is_box, labels.gather(1, best), 0),
            torch.where(is_box, scores, 0.0),
        )


def as_graph(detector: Detector, size: int) -> Graph:
    """The graph of a detector in eval mode on the CPU, sharing its weights.

    `size` is the canvas in pixels. Raises InputError for a head without a graph.
    """
    make = next((m for head, m in GRAPHS.items() if isinstance(detector.head, head)), None)
    if make is None:
        known = ", ".join(head.__name__.removesuffix("FromPyramid") for head in GRAPHS)
        name = type(detector.head).__name__
        raise InputError([f"{name} cannot be exported as one file yet (can: {known})"])
    with torch.no_grad():
        features = detector.features(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    candidates = make(detector.head, features, size)
    return Graph(detector, candidates, candidates.iou).eval()


def keep_best(
    boxes: Tensor, scores: Tensor, groups: Tensor, size: int, iou: float, count: int
) -> tuple[Tensor, Tensor]:
    """NMS within each picture and group, then the `count` best of each picture.

    Args:
        boxes: (N, M, 4), within a canvas of `size` pixels.
        scores: (N, M), ABSENT for padding.
        groups: (N, M), from 0; boxes of different groups do not suppress each other.
        size: The canvas in pixels.
        iou: Above it the worse of two boxes is dropped.
        count: Boxes to keep.

    Returns:
        Scores (N, count), ABSENT where a picture has fewer boxes, and positions among the M.
    """
    pictures = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(groups)
    # One NMS for all: boxes are moved apart on a grid with a column for each group and a row for
    # each picture. A grid keeps the coordinates small enough for fp32.
    offsets = torch.stack([groups, pictures, groups, pictures], dim=-1) * (size + 1.0)  # (N, M, 4)
    present = (scores.flatten() > 0).nonzero()[:, 0]  # positions among N * M
    kept = nms((boxes + offsets).reshape(-1, 4)[present], scores.flatten()[present], iou)
    mask = torch.zeros_like(scores.flatten()).index_fill(0, present[kept], 1.0)
    remaining = torch.where(mask.reshape(scores.shape) > 0, scores, ABSENT)
    return remaining.topk(min(count, remaining.shape[1]))


class LevelCandidates(nn.Module):
    """Candidates of RetinaNet and FCOS: the best class scores of each level, with their boxes."""

    def __init__(self, head: RetinaNet | FCOS, features: Features, size: int) -> None:
        super().__init__()
        self.head = head
        self.iou = head.nms_thresh
        self.size = size
        self.counts, self.anchors = _fixed_anchors(head.anchor_generator, features, size)

    def forward(self, features: Features) -> Candidates:
        """The candidates of all levels, level after level."""
        outputs = self.head.head(list(features.values()))
        scores = outputs["cls_logits"][..., 1:].sigmoid()  # (N, A, K), without the background
        if "bbox_ctrness" in outputs:  # FCOS: how central the point is in its box
            scores = (scores * outputs["bbox_ctrness"].sigmoid()).sqrt()
        levels = zip(
            torch.split(scores, self.counts, dim=1),
            torch.split(outputs["bbox_regression"], self.counts, dim=1),
            torch.split(self.anchors, self.counts),
            strict=True,
        )
        candidates = [self._level_candidates(*level) for level in levels]
        boxes, best, labels = (torch.cat(parts, dim=1) for parts in zip(*candidates, strict=True))
        return boxes, best, labels

    def _level_candidates(self, scores: Tensor, regression: Tensor, anchors: Tensor) -> Candidates:
        """The best of one level's scores (N, a, K), given regression (N, a, 4), anchors (a, 4)."""
        count, classes = scores.shape[1:]
        best, index = scores.flatten(1).topk(min(self.head.topk_candidates, count * classes))
        place = index // classes
        boxes = _decode(self.head.box_coder, _rows(regression, place), anchors[place])
        return boxes.clamp(0, self.size), best, index % classes + 1


class SSDCandidates(nn.Module):
    """Candidates of SSD: the best default boxes of each class."""

    def __init__(self, head: SSD, features: Features, size: int) -> None:
        super().__init__()
        self.head = head
        self.iou = head.nms_thresh
        self.size = size
        _, self.anchors = _fixed_anchors(head.anchor_generator, features, size)

    def forward(self, features: Features) -> Candidates:
        """The candidates of all classes, class after class."""
        outputs = self.head.head(list(features.values()))
        scores = outputs["cls_logits"].softmax(dim=-1)[..., 1:]  # (N, A, K), without the background
        _, anchors, classes = scores.shape
        count = min(self.head.topk_candidates, anchors)
        best, place = scores.transpose(1, 2).topk(count)  # (N, K, count) each
        best, place = best.flatten(1), place.flatten(1)
        regression = _rows(outputs["bbox_regression"], place)
        boxes = _decode(self.head.box_coder, regression, self.anchors[place])
        labels = torch.arange(1, classes + 1, device=boxes.device).repeat_interleave(count)
        return boxes.clamp(0, self.size), best, labels.expand_as(best)


class FasterRCNNCandidates(nn.Module):
    """Candidates of Faster R-CNN: the box of every class of every proposal."""

    def __init__(self, head: FasterRCNNFromPyramid, features: Features, size: int) -> None:
        super().__init__()
        self.rpn = head.rpn
        self.roi_heads = head.roi_heads
        self.iou = head.roi_heads.nms_thresh
        self.size = size
        self.counts, self.anchors = _fixed_anchors(head.rpn.anchor_generator, features, size)
        pool = head.roi_heads.box_roi_pool
        pool(  # torchvision works out the scale of each level at the first call
            {name: features[name] for name in features},
            [torch.zeros(1, 4)],
            [(size, size)],
        )

    def forward(self, features: Features) -> Candidates:
        """The candidates of all proposals, proposal after proposal."""
        proposals, scores = self._proposals(features)
        pictures, count = scores.shape
        present = (scores.flatten() > 0).nonzero()[:, 0]  # (R,) positions among N * P
        rois = proposals.reshape(-1, 4)[present]  # (R, 4)
        pooled = self._pool(features, rois, present // count)  # (R, C, 7, 7)
        logits, regression = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        scores = logits.softmax(dim=-1)[:, 1:]  # (R, K), without the background
        classes = scores.shape[1]
        decoded = self.roi_heads.box_coder.decode_single(regression, rois)
        boxes = decoded.reshape(-1, classes + 1, 4)[:, 1:].clamp(0, self.size)  # (R, K, 4)
        scores = torch.where(_has_sides(boxes, 1e-2), scores, ABSENT)
        all_scores = scores.new_full((pictures * count, classes), ABSENT)
        all_boxes = boxes.new_zeros((pictures * count, classes, 4))
        all_scores = all_scores.index_copy(0, present, scores).reshape(pictures, -1)  # (N, P * K)
        all_boxes = all_boxes.index_copy(0, present, boxes).reshape(pictures, -1, 4)
        labels = torch.arange(1, classes + 1, device=boxes.device).repeat(count)
        return all_boxes, all_scores, labels.expand_as(all_scores)

    def _proposals(self, features: Features) -> tuple[Tensor, Tensor]:
        """The region proposals (N, P, 4) and their objectness (N, P) from 0 to 1, or ABSENT."""
        all_logits, all_deltas = self.rpn.head(list(features.values()))
        candidates = []
        levels = zip(all_logits, all_deltas, torch.split(self.anchors, self.counts), strict=True)
        for number, (logits, deltas, anchors) in enumerate(levels):
            # (N, a, H, W) and (N, 4 a, H, W), into the order of anchors: by place, then by anchor
            pictures, each, height, width = logits.shape
            logits = logits.permute(0, 2, 3, 1).reshape(pictures, -1)
            deltas = deltas.reshape(pictures, each, 4, height, width).permute(0, 3, 4, 1, 2)
            best, index = logits.topk(min(self.rpn.pre_nms_top_n(), logits.shape[1]))
            deltas = _rows(deltas.reshape(pictures, -1, 4), index)
            boxes = _decode(self.rpn.box_coder, deltas, anchors[index]).clamp(0, self.size)
            candidates.append((boxes, best.sigmoid(), torch.full_like(index, number)))
        boxes, scores, level = (torch.cat(parts, dim=1) for parts in zip(*candidates, strict=True))
        usable = _has_sides(boxes, self.rpn.min_size) & (scores >= self.rpn.score_thresh)
        scores = torch.where(usable, scores, ABSENT)
        count = self.rpn.post_nms_top_n()
        scores, index = keep_best(boxes, scores, level, self.size, self.rpn.nms_thresh, count)
        return _rows(boxes, index), scores

    def _pool(self, features: Features, rois: Tensor, pictures: Tensor) -> Tensor:
        """Features (R, C, 7, 7) of regions (R, 4) in pictures (R,), from the level of a size."""
        pool = self.roi_heads.box_roi_pool
        level = pool.map_levels([rois])  # (R,)
        numbered = torch.cat([pictures[:, None].to(rois.dtype), rois], dim=1)
        # a pyramid with few levels has only some of these names
        maps = [features[name] for name in features if name in pool.featmap_names]
        pooled = rois.new_zeros((rois.shape[0], maps[0].shape[1], *pool.output_size))
        for number, (level_map, scale) in enumerate(zip(maps, pool.scales, strict=True)):
            here = (level == number).nonzero()[:, 0]
            part = roi_align(
                level_map,
                numbered[here],
                output_size=pool.output_size,
                spatial_scale=scale,
                sampling_ratio=pool.sampling_ratio,
            )
            pooled = pooled.index_copy(0, here, part)
        return pooled


GRAPHS: dict[type[nn.Module], Callable[..., Any]] = {
    RetinaNet: LevelCandidates,
    FCOS: LevelCandidates,
    SSD: SSDCandidates,
    FasterRCNNFromPyramid: FasterRCNNCandidates,
}
"""The candidates of each head, by its class or base class."""


def _fixed_anchors(generator: Any, features: Features, size: int) -> tuple[list[int], Tensor]:
    """How many anchors each level has, and all of them (A, 4): constant on a fixed canvas."""
    maps = list(features.values())
    each = generator.num_anchors_per_location()
    counts = [n * level.shape[-2] * level.shape[-1] for n, level in zip(each, maps, strict=True)]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)
    return counts, anchors


def _decode(coder: BoxCoder | BoxLinearCoder, regression: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (N, M, 4) of regressions and anchors (N, M, 4)."""
    decode = coder.decode_single if isinstance(coder, BoxCoder) else coder.decode
    flat: Tensor = decode(regression.reshape(-1, 4), anchors.reshape(-1, 4))
    return flat.reshape(anchors.shape)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows (N, n, 4) of values (N, M, 4) at positions (N, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, 4))


def _has_sides(boxes: Tensor, least: float) -> Tensor:
    """Whether both sides of each box (..., 4) have at least that many pixels."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= least).all(dim=-1)
