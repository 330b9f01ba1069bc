"""Pretrained backbones from timm, as feature extractors with maps at strides 8, 16 and 32."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from ..config import InputError
from ..config_errors import did_you_mean, name_hint
from ..machine_errors import is_machine_error
from .backbone_weights import load_weights, packaged_lite0
from .freezing import Stage, split_stages, stop_drop_paths
from .weights import SPEC_FILE

STRIDES = (8, 16, 32)
LARGEST_CANVAS = 512
"""Pixels of the largest canvas that `size_errors` tries to suggest."""
TESTED_BACKBONES = (
    "vgg16",
    "vgg16_bn",
    "resnet18",
    "resnet50",
    "resnet101",
    "inception_v3",
    "inception_v4",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "mobilenetv3_large_100",
    "convnext_tiny",
)
"""Backbones that tests build, train and rebuild; timm's others work untested."""


@dataclass(frozen=True)
class Normalization:
    """How RGB pixels from 0 to 1 are normalized: minus `mean`, then divided by `std`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A feature extractor, and what neck and freezing need to know about it."""

    module: nn.Module
    """Takes normalized pictures (N, 3, S, S); returns a list with one map
    (N, C, S / stride, S / stride) for each of `strides`."""
    channels: tuple[int, ...]
    """C of each map."""
    stages: list[Stage]
    normalization: Normalization
    strides: tuple[int, ...] = STRIDES
    digest: str = ""
    """SHA-256 of the file with the pretrained weights; empty without one."""


def build(name: str, weights: str, normalization: Normalization | None = None) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: A model of timm's, with or without the tag of its weights.
        weights: `imagenet`, `none`, an export's folder, or a file of timm's or torchvision's model
            of that architecture.
        normalization: What an export says of its backbone; by default what the weights say.

    Raises:
        InputError: timm has no such model, it lacks one of the three strides, or its weights do not
            fit.
    """
    check_name(name)
    module = _create(name, _levels(name))
    normalization = normalization or _normalization(name, weights)
    digest = load_weights(module, name, weights) if weights != "none" else ""
    channels = tuple(module.feature_info.channels())
    return Backbone(module, channels, _stages(module, name), normalization, digest=digest)


def _create(name: str, out: tuple[int, ...]) -> Any:
    """A feature extractor of timm's, with its stochastic depth in place but turned off."""
    drop_path: dict[str, Any] = {"drop_path_rate": 1.0} if has_drop_path(name) else {}
    module = timm.create_model(
        name, features_only=True, pretrained=False, out_indices=out, **drop_path
    )
    stop_drop_paths(module)
    return module


@cache
def has_drop_path(name: str) -> bool:
    """Whether a backbone has stochastic depth. Raises InputError like `build`."""
    check_name(name)
    with torch.device("meta"):
        try:
            timm.create_model(name, drop_path_rate=1.0)
        except TypeError:  # timm has no other way to ask
            return False
    return True


def count_stages(name: str) -> int:
    """How many stages a backbone has, without allocating it. Raises InputError like `build`."""
    return len(_stages(_empty(name), name))


def size_errors(name: str, size: int) -> list[str]:
    """Why a backbone cannot run on a canvas of `size` pixels; empty when it can.

    Allocates no weights. Raises InputError like `build`.
    """
    problem = _problem(name, size)
    if not problem:
        return []
    sizes = range(size + 32, LARGEST_CANVAS + 1, 32)
    if larger := next((s for s in sizes if not _problem(name, s)), 0):
        return [f"model.image_size: {size} is no size for {name} (the next that is: {larger})"]
    return [f"model.backbone: {name} gives no feature maps of a canvas of {size} pixels: {problem}"]


@cache
def _problem(name: str, size: int) -> str:
    """What goes wrong when a backbone runs on a canvas; empty when nothing does."""
    module = _empty(name)
    try:
        maps = module(torch.zeros(1, 3, size, size, device="meta"))
    except Exception as error:  # models of all kinds fail in all ways
        if is_machine_error(error):
            raise
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return "" if "meta" in text else text  # some create tensors on the CPU, which is no problem
    for level, channels in zip(maps, module.feature_info.channels(), strict=True):
        if level.ndim != 4 or level.shape[1] != channels:
            return f"one is {tuple(level.shape)}, not (1, {channels}, height, width)"
    return ""


@cache
def _empty(name: str) -> Any:
    """The feature extractor in eval mode, on the meta device. Raises InputError like `build`."""
    check_name(name)
    with torch.device("meta"):
        return _create(name, _levels(name)).eval()


def is_timm_model(name: str) -> bool:
    """Whether timm has an architecture of this name, with or without a tag of weights."""
    return timm.is_model(name.partition(".")[0])


def check_name(name: str) -> None:
    """Raise InputError when timm has no model of this name, with the nearest one."""
    if not is_timm_model(name):
        raise InputError([f"model.backbone: timm has no {name!r}" + _nearest_model(name)])
    architecture, dot, _ = name.partition(".")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if dot and name not in tagged:
        raise InputError(
            [f"model.backbone: timm has no weights {name!r}" + name_hint(name, tagged)]
        )


def _nearest_model(name: str) -> str:
    lists = "; `unfreeze models` lists those tested, timm.list_models() all"
    return did_you_mean(name, timm.list_models()) or lists


@cache
def _levels(name: str) -> tuple[int, ...]:
    """Indices of the feature levels at strides 8, 16 and 32, the deepest of each."""
    with torch.device("meta"):
        try:
            module: Any = timm.create_model(name, features_only=True)
            info = module.feature_info.info
        except (RuntimeError, AttributeError, AssertionError):
            info = []
    reductions = [level["reduction"] for level in info]
    levels = {stride: i for i, stride in enumerate(reductions)}
    if any(stride not in levels for stride in STRIDES):
        has = ", ".join(map(str, dict.fromkeys(reductions))) or "none"
        raise InputError(
            [
                f"model.backbone: {name} has feature maps at strides {has}; a detector here needs "
                "8, 16 and 32 (VGG, ResNet, Inception, EfficientNet, MobileNet, ConvNeXt have them)"
            ]
        )
    return tuple(levels[stride] for stride in STRIDES)


def _stages(module: nn.Module, name: str) -> list[Stage]:
    modules = dict(module.named_modules())
    ends = []
    features: Any = module.feature_info
    for level in features.info:
        # timm flattens some models: "features.3" becomes the child "features_3"
        end = level["module"] if level["module"] in modules else level["module"].replace(".", "_")
        if end in modules:
            ends.append(end)
    if not ends:
        raise InputError([f"model.backbone: timm does not say where the levels of {name} end"])
    return split_stages(module, ends)


def _normalization(name: str, weights: str) -> Normalization:
    """The normalization that weights were trained with: as the export says, or timm."""
    if name == "tf_efficientnet_lite0" and weights == "imagenet" and packaged_lite0():
        # the packaged weights were trained on (x - 127) / 128 for x in 0 to 255
        return Normalization((127 / 255,) * 3, (128 / 255,) * 3)
    spec = Path(weights) / SPEC_FILE
    if spec.is_file():
        try:
            pixels = json.loads(spec.read_text())["pixels"]
            return Normalization(tuple(pixels["mean"]), tuple(pixels["std"]))
        except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
            damaged = f"model.weights: {spec} is damaged; export the model again"
            raise InputError([damaged]) from error
    config: Any = timm.get_pretrained_cfg(name)
    if config is None:
        return Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Normalization(tuple(config.mean), tuple(config.std))


def licence(name: str) -> str:
    """Licence of a model's pretrained weights, as timm states it."""
    config = timm.get_pretrained_cfg(name)
    return (config.license if config else None) or "not stated"
