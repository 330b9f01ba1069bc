"""torchvision's COCO-pretrained detectors, taken apart into backbone, neck and head.

Everything but the class layers is kept; those are new. Each is built by torchvision's own builder
and loaded under torchvision's own names, so that its files fit as they are, and then cut where the
feature pyramid begins. Two things that the builders make depend on their arguments are fixed here:
norms are always BatchNorm2d with the eps that the pretrained ones have (the frozen kind holds no
parameters that could be opened), and SSDlite has always the reduced tail of its COCO weights.
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

from . import weights as files
from .backbones import COUNTER, Backbone, Pixels
from .freezing import split_stages
from .heads import (
    FasterRCNNFromPyramid,
    FCOSFromPyramid,
    Head,
    RetinaNetFromPyramid,
    SSDFromPyramid,
)

LEGAL = "coco, none, a file, or an export"
"""Weights of these detectors."""
SMALLEST = {"ssd300_vgg16": 288}
"""Smallest canvas, where it is not the general one: SSD300's last convolutions are not padded."""


@dataclass(frozen=True)
class _Body:
    """A torchvision classifier's layers as they stand in a detector."""

    ends: tuple[str, ...]
    """The last module at strides 2, 4, 8, 16 and 32, VGG's at 1, 2, 4, 8 and 16: as timm has it."""
    taps: tuple[str, ...]
    """Modules whose outputs go to the neck."""
    strides: tuple[int, ...]
    """Of those outputs."""
    eps: float | None = 1e-5
    """Of the norms as they were trained; None leaves the builder's."""


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
    # 13 is the expansion alone of what is 13 above, so that one more follows
    "ssdlite320_mobilenet_v3_large": _Body(
        ("1", "3", "6", "13", "17"), ("13", "17"), (16, 32), eps=None
    ),
}


def build(name: str, weights: str, classes: int) -> tuple[Backbone, nn.Module, Head]:
    """Backbone, neck and head of a detector of torchvision's, for that many classes.

    `weights` is `coco`, `none`, a file in torchvision's naming, or an export, from which nothing
    is loaded yet. The new class layers come from torch's global generator. Raises BadInput when
    the file cannot be fetched, is unreadable, or is of another detector.
    """
    model = _built(name)
    from_export = Path(weights).is_dir()
    digest = "" if weights == "none" or from_export else _load(model, name, weights)
    neck, head = _cut(model, classes)
    return _backbone(model, BODIES[name], digest), neck, head


def _built(name: str) -> Any:
    """torchvision's model as its builder makes it for COCO, its norms as they were trained."""
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
    """Load torchvision's tensors, except those of the class layers; returns the file's SHA-256."""
    file = files.fetch(_url(name)) if weights == "coco" else Path(weights)
    found = files.read(file, LEGAL)
    own = model.state_dict()
    layers = _class_layers(model)
    state = {n: t for n, t in found.state.items() if not n.startswith(layers)}
    _modernize(model, state)
    needed = {n for n in own if not n.startswith(layers) and not n.endswith(COUNTER)}
    missing = [n for n in needed if n not in state or state[n].shape != own[n].shape]
    strangers = [n for n in state if n not in own]
    if missing or strangers:
        raise files.misfit(
            str(file), name, missing, strangers, f"a checkpoint of torchvision's {name}"
        )
    model.load_state_dict(state, strict=False)
    return found.digest


def _url(name: str) -> str:
    weights: Any = torchvision.models.get_model_weights(name)
    return str(weights.COCO_V1.url)


def _modernize(model: Any, state: dict[str, Tensor]) -> None:
    """Rename, in place, the convolutions of files that were written before torchvision 0.13."""
    for name in [n for n in state if n not in model.state_dict()]:
        parent, _, kind = name.rpartition(".")
        path, _, place = parent.rpartition(".")
        if path.endswith("_head.conv") and place.isdigit():  # each second was an activation
            state[f"{path}.{int(place) // 2}.0.{kind}"] = state.pop(name)
        elif parent == "rpn.head.conv":
            state[f"{parent}.0.0.{kind}"] = state.pop(name)
        elif path.endswith((".inner_blocks", ".layer_blocks")):
            state[f"{parent}.0.{kind}"] = state.pop(name)


def _class_layers(model: Any) -> tuple[str, ...]:
    """Beginnings of the names of the tensors whose shapes depend on the number of classes."""
    if isinstance(model, FasterRCNN):
        return ("roi_heads.box_predictor.",)
    head = "head.classification_head."
    if not isinstance(model, SSD):
        return (head + "cls_logits.",)
    lists = model.head.classification_head.module_list
    lite = isinstance(lists[0], nn.Sequential)  # only the last convolution of each is the classes'
    return tuple(f"{head}module_list.{i}." + "1." * lite for i in range(len(lists)))


def _cut(model: Any, classes: int) -> tuple[nn.Module, Head]:
    """Neck and head, with new class layers."""
    if isinstance(model, FasterRCNN):
        width = model.roi_heads.box_predictor.cls_score.in_features
        model.roi_heads.box_predictor = FastRCNNPredictor(width, classes + 1)
        return model.backbone.fpn, FasterRCNNFromPyramid(model)
    if isinstance(model, SSD):
        return _ssd_neck(model.backbone), _ssd_head(model, classes)
    branch, anchors = model.head.classification_head, model.anchor_generator
    new: type[FCOSClassificationHead | RetinaNetClassificationHead] = type(branch)
    width = branch.cls_logits.in_channels
    branch.cls_logits = new(width, branch.num_anchors, classes + 1).cls_logits
    branch.num_classes = classes + 1
    if isinstance(model, RetinaNet):
        return model.backbone.fpn, RetinaNetFromPyramid(model.head, anchors, classes)
    assert isinstance(model, FCOS)
    return model.backbone.fpn, FCOSFromPyramid(model.head, anchors, classes)


def _ssd_head(model: SSD, classes: int) -> SSDFromPyramid:
    branch: Any = model.head.classification_head
    places = model.anchor_generator.num_anchors_per_location()
    for i, layer in enumerate(branch.module_list):
        outputs = places[i] * (classes + 1)
        if isinstance(layer, nn.Sequential):
            layer[1] = _new_layer(layer[1], outputs)
        else:
            branch.module_list[i] = _new_layer(layer, outputs)
    branch.num_columns = classes + 1
    made = model.anchor_generator
    # by the maps' own sizes: torchvision's steps are those of 300 pixels
    boxes = DefaultBoxGenerator(made.aspect_ratios, scales=made.scales)
    return SSDFromPyramid(model.head, boxes, model.nms_thresh)


def _new_layer(old: Any, outputs: int) -> nn.Conv2d:
    new = nn.Conv2d(old.in_channels, outputs, old.kernel_size, padding=old.padding)
    nn.init.xavier_uniform_(new.weight)
    nn.init.constant_(new.bias, 0.0)  # type: ignore[arg-type]
    return new


def _ssd_neck(backbone: Any) -> nn.Module:
    if hasattr(backbone, "scale_weight"):
        return ScaledLevels(backbone.scale_weight, [backbone.extra[0][-1], *backbone.extra[1:]])
    return FurtherLevels(list(backbone.extra))


class FurtherLevels(nn.Module):
    """SSDlite's neck: the maps, and ever coarser ones made from the last."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        levels = list(maps.values())
        for block in self.blocks:
            levels.append(block(levels[-1]))
        return OrderedDict((str(i), level) for i, level in enumerate(levels))


class ScaledLevels(FurtherLevels):
    """SSD's neck: the first map scaled, the second, of conv5, only to make further ones from."""

    def __init__(self, scale: nn.Parameter, blocks: list[nn.Module]) -> None:
        super().__init__(blocks)
        self.scale_weight = scale

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        first, last = maps.values()
        scaled = self.scale_weight.view(1, -1, 1, 1) * F.normalize(first)
        levels = super().forward(OrderedDict({"0": last}))
        return OrderedDict({**levels, "0": scaled})


def _backbone(model: Any, body: _Body, digest: str) -> Backbone:
    trunk = Trunk(_layers(model.backbone), body.taps)
    return Backbone(
        module=trunk,
        channels=(),
        stages=split_stages(trunk, body.ends),
        pixels=Pixels(tuple(model.transform.image_mean), tuple(model.transform.image_std)),
        strides=body.strides,
        digest=digest,
    )


class Trunk(nn.Sequential):
    """A classifier's layers in a row; what those named `taps` give are the maps."""

    def __init__(self, layers: dict[str, nn.Module], taps: tuple[str, ...]) -> None:
        super().__init__(OrderedDict(layers))
        self.taps = taps

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = []
        for name, layer in self.named_children():
            pixels = layer(pixels)
            if name in self.taps:
                maps.append(pixels)
        return maps


def _layers(backbone: Any) -> dict[str, nn.Module]:
    """The classifier's layers by name: torchvision's, or their number where these are cut up."""
    if hasattr(backbone, "body"):
        return dict(backbone.body.named_children())
    if hasattr(backbone, "scale_weight"):  # conv5 stands before what replaces VGG's own last layers
        layers = [*backbone.features, *backbone.extra[0][:-1]]
    else:
        layers = [layer for half in backbone.features for layer in half]
    return {str(i): layer for i, layer in enumerate(layers)}
