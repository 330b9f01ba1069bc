"""torchvision's COCO-pretrained detectors, taken apart into backbone, neck and head.

All layers are kept but the class layers, which are new. Each detector is built by torchvision's
builder and loaded under torchvision's names, so that its files fit. Then it is cut where the
feature pyramid begins. Two things that the builders let their arguments decide are fixed here:

- Norms are always BatchNorm2d with the eps of the pretrained ones. torchvision's frozen norms hold
  no parameters that could train.
- SSDlite always has the reduced tail of its COCO weights.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.fcos import FCOSClassificationHead
from torchvision.models.detection.retinanet import RetinaNetClassificationHead
from torchvision.models.detection.ssd import SSD

from . import weights as weight_files
from .backbone_weights import COUNTER
from .backbones import Backbone, Normalization
from .freezing import split_stages
from .heads import (
    FasterRCNNFromPyramid,
    FCOSFromPyramid,
    Head,
    RetinaNetFromPyramid,
    SSDFromPyramid,
)

LEGAL_WEIGHTS = "coco, none, a file, or an export"
"""What `model.weights` may be for these detectors, as errors say it."""
SMALLEST_CANVAS = {"ssd300_vgg16": 288}
"""Smallest canvas in pixels, where it is not the general one. The last convolutions of SSD300 have
no padding."""


@dataclass(frozen=True)
class _Body:
    """The layers of a torchvision classifier inside of a detector."""

    ends: tuple[str, ...]
    """The last module of each stage, at the strides of timm's stages: 2, 4, 8, 16 and 32, for VGG
    1, 2, 4, 8 and 16."""
    taps: tuple[str, ...]
    """Modules whose outputs go to the neck."""
    strides: tuple[int, ...]
    """Strides of those outputs."""
    eps: float | None = 1e-5
    """The eps that the norms were trained with; None keeps the builder's."""


RESNET = ("relu", "layer1", "layer2", "layer3", "layer4")
MOBILENET = ("1", "3", "6", "12", "16")
BODIES = {
    # trained when torchvision's frozen norms had no eps
    "fasterrcnn_resnet50_fpn": _Body(RESNET, RESNET[1:], (4, 8, 16, 32), eps=0.0),
    "fasterrcnn_resnet50_fpn_v2": _Body(RESNET, RESNET[1:], (4, 8, 16, 32)),
    "fasterrcnn_mobilenet_v3_large_fpn": _Body(MOBILENET, ("13", "16"), (32, 32)),
    "fasterrcnn_mobilenet_v3_large_320_fpn": _Body(MOBILENET, ("13", "16"), (32, 32)),
    "retinanet_resnet50_fpn": _Body(RESNET, RESNET[2:], (8, 16, 32), eps=0.0),
    "retinanet_resnet50_fpn_v2": _Body(RESNET, RESNET[2:], (8, 16, 32)),
    "fcos_resnet50_fpn": _Body(RESNET, RESNET[2:], (8, 16, 32)),
    "ssd300_vgg16": _Body(("3", "8", "15", "22", "29"), ("22", "29"), (8, 16)),
    # torchvision cuts block 13 in two here, so the last stage ends one number later
    "ssdlite320_mobilenet_v3_large": _Body(
        ("1", "3", "6", "13", "17"), ("13", "17"), (16, 32), eps=None
    ),
}
"""By the name of torchvision's builder."""


def build(name: str, weights: str, classes: int) -> tuple[Backbone, nn.Module, Head]:
    """Backbone, neck and head of one of torchvision's detectors.

    Args:
        name: torchvision's builder.
        weights: `coco`, `none`, a file in torchvision's naming, or an export. An export's weights
            are not loaded here: the caller does that.
        classes: Number of classes. Their new layers come from torch's global generator.

    Raises:
        InputError: The file cannot be fetched, is unreadable, or is of another detector.
    """
    model = _build_model(name)
    from_export = Path(weights).is_dir()
    digest = "" if weights == "none" or from_export else _load(model, name, weights)
    neck, head = _cut(model, classes)
    return _backbone(model, BODIES[name], digest), neck, head


def _build_model(name: str) -> Any:
    """Build torchvision's model for COCO, with the eps that its norms were trained with."""
    builder: Callable[..., Any] = getattr(torchvision.models.detection, name)
    model = builder(weights=None, weights_backbone=None, num_classes=91)
    eps = BODIES[name].eps
    body = getattr(model.backbone, "body", None)
    if eps is not None and body is not None:
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = eps
    return model


def _load(model: nn.Module, name: str, weights: str) -> str:
    """Load torchvision's tensors except the class layers'; returns the file's SHA-256."""
    path = weight_files.fetch(_url(name)) if weights == "coco" else Path(weights)
    file = weight_files.read(path, LEGAL_WEIGHTS)
    expected = model.state_dict()
    class_layers = _class_layers(model)
    state = {n: t for n, t in file.state.items() if not n.startswith(class_layers)}
    _rename_old_keys(model, state)
    needed = {n for n in expected if not n.startswith(class_layers) and not n.endswith(COUNTER)}
    missing = [n for n in needed if n not in state or state[n].shape != expected[n].shape]
    unexpected = [n for n in state if n not in expected]
    if missing or unexpected:
        remedy = f"a checkpoint of torchvision's {name}"
        raise weight_files.mismatch_error(str(path), name, missing, unexpected, remedy)
    model.load_state_dict(state, strict=False)
    return file.digest


def _url(name: str) -> str:
    weights: Any = torchvision.models.get_model_weights(name)
    return str(weights.COCO_V1.url)


def _rename_old_keys(model: Any, state: dict[str, Tensor]) -> None:
    """Rename, in place, the convolutions in files from before torchvision 0.13."""
    for name in [n for n in state if n not in model.state_dict()]:
        parent, _, kind = name.rpartition(".")
        path, _, number = parent.rpartition(".")
        if path.endswith("_head.conv") and number.isdigit():  # every second one was an activation
            state[f"{path}.{int(number) // 2}.0.{kind}"] = state.pop(name)
        elif parent == "rpn.head.conv":
            state[f"{parent}.0.0.{kind}"] = state.pop(name)
        elif path.endswith((".inner_blocks", ".layer_blocks")):
            state[f"{parent}.0.{kind}"] = state.pop(name)


def _class_layers(model: Any) -> tuple[str, ...]:
    """Prefixes of the tensors whose shapes depend on the number of classes."""
    if isinstance(model, FasterRCNN):
        return ("roi_heads.box_predictor.",)
    head = "head.classification_head."
    if not isinstance(model, SSD):
        return (head + "cls_logits.",)
    lists = model.head.classification_head.module_list
    lite = isinstance(
        lists[0], nn.Sequential
    )  # of each, only the last convolution has class outputs
    return tuple(f"{head}module_list.{i}." + "1." * lite for i in range(len(lists)))


def _cut(model: Any, classes: int) -> tuple[nn.Module, Head]:
    """The neck and head of a model, with new class layers."""
    if isinstance(model, FasterRCNN):
        width = model.roi_heads.box_predictor.cls_score.in_features
        model.roi_heads.box_predictor = FastRCNNPredictor(width, classes + 1)
        return model.backbone.fpn, FasterRCNNFromPyramid(model)
    if isinstance(model, SSD):
        return _ssd_neck(model.backbone), _ssd_head(model, classes)
    branch, anchors = model.head.classification_head, model.anchor_generator
    branch_type: type[FCOSClassificationHead | RetinaNetClassificationHead] = type(branch)
    width = branch.cls_logits.in_channels
    branch.cls_logits = branch_type(width, branch.num_anchors, classes + 1).cls_logits
    branch.num_classes = classes + 1
    if isinstance(model, RetinaNet):
        return model.backbone.fpn, RetinaNetFromPyramid(model.head, anchors, classes)
    assert isinstance(model, FCOS)
    return model.backbone.fpn, FCOSFromPyramid(model.head, anchors, classes)


def _ssd_head(model: SSD, classes: int) -> SSDFromPyramid:
    branch: Any = model.head.classification_head
    anchors_per_place = model.anchor_generator.num_anchors_per_location()
    for i, layer in enumerate(branch.module_list):
        outputs = anchors_per_place[i] * (classes + 1)
        if isinstance(layer, nn.Sequential):
            layer[1] = _new_layer(layer[1], outputs)
        else:
            branch.module_list[i] = _new_layer(layer, outputs)
    branch.num_columns = classes + 1
    built = model.anchor_generator
    # without torchvision's steps, which are those of 300 pixels: then the maps' sizes decide
    boxes = DefaultBoxGenerator(built.aspect_ratios, scales=built.scales)
    return SSDFromPyramid(model.head, boxes, model.nms_thresh)


def _new_layer(old: Any, outputs: int) -> nn.Conv2d:
    """A convolution like the old one with that many outputs, initialized like torchvision's SSD."""
    new = nn.Conv2d(old.in_channels, outputs, old.kernel_size, padding=old.padding)
    nn.init.xavier_uniform_(new.weight)
    nn.init.constant_(new.bias, 0.0)  # type: ignore[arg-type]
    return new


def _ssd_neck(backbone: Any) -> nn.Module:
    if hasattr(backbone, "scale_weight"):
        return ScaledLevels(backbone.scale_weight, [backbone.extra[0][-1], *backbone.extra[1:]])
    return FurtherLevels(list(backbone.extra))


class FurtherLevels(nn.Module):
    """SSDlite's neck: the backbone's maps, and coarser ones that blocks compute from the last."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        """The levels by name, finest first: the maps, then one more for each block."""
        levels = list(maps.values())
        for block in self.blocks:
            levels.append(block(levels[-1]))
        return OrderedDict((str(i), level) for i, level in enumerate(levels))


class ScaledLevels(FurtherLevels):
    """SSD's neck: the first map, scaled, and coarser ones that blocks compute from the second."""

    def __init__(self, scale: nn.Parameter, blocks: list[nn.Module]) -> None:
        super().__init__(blocks)
        self.scale_weight = scale

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        """The levels by name, finest first; the second map itself, conv5's, is none of them."""
        first, last = maps.values()
        scaled = self.scale_weight.view(1, -1, 1, 1) * F.normalize(first)
        levels = super().forward(OrderedDict({"0": last}))
        return OrderedDict({**levels, "0": scaled})


def _backbone(model: Any, body: _Body, digest: str) -> Backbone:
    trunk = Trunk(_layers(model.backbone), body.taps)
    transform = model.transform
    return Backbone(
        module=trunk,
        channels=(),
        stages=split_stages(trunk, body.ends),
        normalization=Normalization(tuple(transform.image_mean), tuple(transform.image_std)),
        strides=body.strides,
        digest=digest,
    )


class Trunk(nn.Sequential):
    """A classifier's layers in a row; the outputs of those named `taps` are the maps."""

    def __init__(self, layers: dict[str, nn.Module], taps: tuple[str, ...]) -> None:
        super().__init__(OrderedDict(layers))
        self.taps = taps

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps (N, C, H, W) of normalized pictures (N, 3, S, S), finest first."""
        maps = []
        for name, layer in self.named_children():
            pixels = layer(pixels)
            if name in self.taps:
                maps.append(pixels)
        return maps


def _layers(backbone: Any) -> dict[str, nn.Module]:
    """The classifier's layers by torchvision's names, or numbered where it regroups them."""
    if hasattr(backbone, "body"):
        return dict(backbone.body.named_children())
    if hasattr(backbone, "scale_weight"):  # VGG: conv5 is at the beginning of `extra`
        layers = [*backbone.features, *backbone.extra[0][:-1]]
    else:
        layers = [layer for half in backbone.features for layer in half]
    return {str(i): layer for i, layer in enumerate(layers)}
