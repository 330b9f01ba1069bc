"""BatchNorms with fixed statistics, folded into the convolutions before them.

Such a norm scales and shifts each channel, and a convolution with other weights and bias does the
same. Folding saves a pass over every map and, where stages are open, two more in the backward pass.
The parameters stay what they are: the folded weights are computed from them, and gradients reach
them.

On a GPU frozen stages are not folded, since adding a bias takes an extra pass there. Exported
graphs keep their norms; the runtime that loads them folds them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ...machine_errors import is_machine_error
from ..freezing import Stage
from .cpu_bf16 import Forward, convolve


def fold_norms(backbone: nn.Module, stages: list[Stage], size: int) -> None:
    """Fold a backbone's norms into its convolutions, as long as their statistics are fixed.

    `size` is the canvas in pixels that `find_pairs` tries the backbone with.
    """
    for conv, norm in find_pairs(backbone, stages, size):
        folded = FoldedWeights()
        conv.forward = partial(_convolve, conv, norm, conv.forward, folded)  # type: ignore[method-assign]
        norm.forward = partial(_skip_if_folded, conv, norm, norm.forward)  # type: ignore[method-assign]


def find_pairs(
    backbone: nn.Module, stages: list[Stage], size: int
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions and norms that can be folded.

    Both lie in one stage, each is called once, and the convolution's output goes into the norm
    alone. The backbone is run on the meta device with a canvas of `size` pixels, and is left in
    training mode. Empty where it cannot run there.
    """
    state = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    meta_state = {name: tensor.detach().to("meta") for name, tensor in state.items()}
    backbone.eval()
    try:
        with _CallRecorder() as calls:
            pixels = torch.zeros(1, 3, size, size, device="meta")
            maps = torch.func.functional_call(backbone, meta_state, (pixels,))
            calls.add_uses(list(maps))  # a map that the neck uses must stay what it is
    except Exception as error:  # backbones of all kinds fail in all ways on the meta device
        if is_machine_error(error):
            raise
        return []
    finally:
        backbone.train()
    owner = {id(tensor): name.rpartition(".")[0] for name, tensor in meta_state.items()}
    stage_of = {name: i for i, stage in enumerate(stages) for name in stage.modules}
    pairs = []
    for weight, mean in calls.pairs():
        names = owner.get(weight, ""), owner.get(mean, "")
        conv, norm = (backbone.get_submodule(name) for name in names)
        if _can_fold(conv, norm) and stage_of[names[0]] == stage_of[names[1]]:
            pairs.append((conv, norm))
    return pairs  # type: ignore[return-value]


def _can_fold(conv: nn.Module, norm: Any) -> bool:
    known = type(conv) in (nn.Conv2d, Conv2dSame) and type(norm) in (nn.BatchNorm2d, BatchNormAct2d)
    # without an eps, the scale of a channel that is always 0 is too large for fp16
    return known and norm.affine and norm.eps > 0


class _CallRecorder(TorchFunctionMode):
    """Records which convolutions' outputs go into which norms; knows tensors by their `id`."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[int] = []
        """Weights of the convolution, one entry for each call."""
        self.outputs: dict[int, int] = {}
        """By the output of a convolution, its weights."""
        self.means: list[int] = []
        """Running means of the norm, one entry for each call."""
        self.uses: defaultdict[int, list[int | None]] = defaultdict(list)
        """By tensor, the running means of each norm that it goes into; None for anything else."""
        self.alive: list[Any] = []
        """All results, so that none is freed and another tensor gets its id."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.alive.append(result)
        if isinstance(result, Tensor | list | tuple | None) and not isinstance(result, torch.Size):
            into = id(args[1]) if func is F.batch_norm else None
            self.add_uses([*args, *(kwargs or {}).values()], into)
        if func is F.conv2d:
            self.weights.append(id(args[1]))
            self.outputs[id(result)] = id(args[1])
        elif func is F.batch_norm:
            self.means.append(id(args[1]))
        return result

    def add_uses(self, values: Iterable[Any], into: int | None = None) -> None:
        """Note that the tensors among `values` go into a norm or, by default, something else."""
        for value in values:
            if isinstance(value, Tensor):
                self.uses[id(value)].append(into)
            elif isinstance(value, list | tuple):
                self.add_uses(value, into)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Weights and running means of the convolutions and norms that can be folded."""
        for output, weight in self.outputs.items():
            into = self.uses[output]
            if len(into) != 1 or into[0] is None:
                continue
            if self.weights.count(weight) == self.means.count(into[0]) == 1:
                yield weight, into[0]


class FoldedWeights:
    """The folded weights and bias of one convolution, cached while nothing trains."""

    def __init__(self) -> None:
        self.cached: tuple[object, Tensor, Tensor] | None = None

    def get(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        """Weights of the convolution's shape, and the bias (C,), in the precision of autocast."""
        weight, device = conv.weight, conv.weight.device.type
        parts = [weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        tensors = [part for part in parts if part is not None]
        # Fused optimizers change weights without a new version. But before each step a pass trains:
        # it comes here, or to `_convolve` with a norm that adapts its statistics, and both drop the
        # cache. Not on a GPU, where a graph replays the pass: there nothing is cached.
        if weight.is_cuda or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            self.cached = None
            return fold(conv, norm)
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
        state = (dtype, [(tensor.data_ptr(), tensor._version) for tensor in tensors])
        if not self.cached or self.cached[0] != state:
            with torch.no_grad():
                weight, bias = fold(conv, norm)
            self.cached = (state, weight.to(dtype), bias.to(dtype))
        return self.cached[1:]


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weights and bias with which the convolution gives the output of both."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)  # (C,)
    shift = -mean if conv.bias is None else conv.bias - mean
    return conv.weight * scale[:, None, None, None], torch.addcmul(norm.bias, shift, scale)


def _is_folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    pays_off = conv.weight.requires_grad or conv.weight.device.type != "cuda"
    return pays_off and not norm.training and not torch.compiler.is_exporting()


def _convolve(
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
    forward: Forward,
    folded: FoldedWeights,
    features: Tensor,
) -> Tensor:
    if not _is_folded(conv, norm):
        folded.cached = None  # this pass may train
        return forward(features)
    return convolve(conv, features, *folded.get(conv, norm))


def _skip_if_folded(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, forward: Forward, features: Tensor
) -> Tensor:
    """The norm; where it is folded, only its dropout and activation."""
    if not _is_folded(conv, norm):
        return forward(features)
    if isinstance(norm, BatchNormAct2d):
        return norm.act(norm.drop(features))  # type: ignore[no-any-return]
    return features
