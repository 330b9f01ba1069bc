"""BatchNorm that keeps its statistics, computed by the convolution before it.

It then multiplies each channel and adds to it, and a convolution with other weights gives the same.
That saves a pass over every map and, where stages are open, two more on the way back. The
parameters remain what they are, and are trained as they are. A GPU adds a bias in a pass of its
own, so that of frozen stages nothing would be gained there; graphs are exported with their norms,
which whoever runs them folds.
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

from ...machine_errors import is_of_machine
from ..freezing import Stage
from .cpu_bf16 import Plain, convolve


def fold_norms(backbone: nn.Module, stages: list[Stage], size: int) -> None:
    """Let a backbone's convolutions do what the norms after them do, as long as these keep their
    statistics. What is called in another way, as found out with a canvas of that size, stays."""
    for conv, norm in find_pairs(backbone, stages, size):
        conv.forward = partial(_convolve, conv, norm, conv.forward, Folded())  # type: ignore[method-assign]
        norm.forward = partial(_follow, conv, norm, norm.forward)  # type: ignore[method-assign]


def find_pairs(
    backbone: nn.Module, stages: list[Stage], size: int
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and norms of one stage, of which each is called once, and what the convolution
    gives goes into the norm alone. Leaves the backbone in training mode."""
    state = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    outlines = {name: tensor.detach().to("meta") for name, tensor in state.items()}
    backbone.eval()
    try:
        with _Calls() as calls:
            pixels = torch.zeros(1, 3, size, size, device="meta")
            maps = torch.func.functional_call(backbone, outlines, (pixels,))
            calls.use(list(maps))  # which are wanted as they are
    except Exception as error:  # whatever a net of any kind runs into on the meta device
        if is_of_machine(error):
            raise
        return []
    finally:
        backbone.train()
    owner = {id(tensor): name.rpartition(".")[0] for name, tensor in outlines.items()}
    stage = {name: i for i, own in enumerate(stages) for name in own.modules}
    pairs = []
    for weight, mean in calls.pairs():
        names = owner.get(weight, ""), owner.get(mean, "")
        conv, norm = (backbone.get_submodule(name) for name in names)
        if _fit(conv, norm) and stage[names[0]] == stage[names[1]]:
            pairs.append((conv, norm))
    return pairs  # type: ignore[return-value]


def _fit(conv: nn.Module, norm: Any) -> bool:
    known = type(conv) in (nn.Conv2d, Conv2dSame) and type(norm) in (nn.BatchNorm2d, BatchNormAct2d)
    # without an eps a channel that is always 0 has a scale beyond what fp16 has
    return known and norm.affine and norm.eps > 0


class _Calls(TorchFunctionMode):
    """Where what convolutions give goes."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[int] = []
        """Of each convolution."""
        self.made: dict[int, int] = {}
        """By what it gave, its weights."""
        self.means: list[int] = []
        """Running means of each norm, None where it has none."""
        self.uses: defaultdict[int, list[int | None]] = defaultdict(list)
        """By tensor, the means of each norm it goes into; None for anything else."""
        self.alive: list[Any] = []
        """Ids are unique among what is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.alive.append(found)
        if isinstance(found, Tensor | list | tuple | None) and not isinstance(found, torch.Size):
            into = id(args[1]) if func is F.batch_norm else None
            self.use([*args, *(kwargs or {}).values()], into)
        if func is F.conv2d:
            self.weights.append(id(args[1]))
            self.made[id(found)] = id(args[1])
        elif func is F.batch_norm:
            self.means.append(id(args[1]))
        return found

    def use(self, values: Iterable[Any], into: int | None = None) -> None:
        """The tensors among these go into that norm or, without one, into something else."""
        for value in values:
            if isinstance(value, Tensor):
                self.uses[id(value)].append(into)
            elif isinstance(value, list | tuple):
                self.use(value, into)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Weights and means of what belongs together."""
        for output, weight in self.made.items():
            into = self.uses[output]
            if len(into) == 1 and into[0] is not None:
                if self.weights.count(weight) == self.means.count(into[0]) == 1:
                    yield weight, into[0]


class Folded:
    """Weights and bias of a convolution with those of its norm: made for each pass that trains,
    else kept, in the precision in which they are used."""

    def __init__(self) -> None:
        self.kept: tuple[object, Tensor, Tensor] | None = None

    def of(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        """Weights as the convolution has them, and the bias (C,)."""
        weight, where = conv.weight, conv.weight.device.type
        parts = [weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        own = [part for part in parts if part is not None]
        # fused optimizers count no versions, but before a step all come here, or past here to norms
        # that follow the batch; not on a GPU, where steps are recorded
        if weight.is_cuda or (torch.is_grad_enabled() and any(p.requires_grad for p in own)):
            self.kept = None
            return fold(conv, norm)
        dtype = (
            torch.get_autocast_dtype(where) if torch.is_autocast_enabled(where) else weight.dtype
        )
        state = (dtype, [(part.data_ptr(), part._version) for part in own])
        if not self.kept or self.kept[0] != state:
            with torch.no_grad():
                weight, bias = fold(conv, norm)
            self.kept = (state, weight.to(dtype), bias.to(dtype))
        return self.kept[1:]


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weights and bias with which a convolution gives what the norm would make of it."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = -mean if conv.bias is None else conv.bias - mean
    return conv.weight * scale[:, None, None, None], torch.addcmul(norm.bias, shift, scale)


def _is_folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    gains = conv.weight.requires_grad or conv.weight.device.type != "cuda"
    return gains and not norm.training and not torch.compiler.is_exporting()


def _convolve(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, plain: Plain, folded: Folded, features: Tensor
) -> Tensor:
    if not _is_folded(conv, norm):
        folded.kept = None  # for this pass may train
        return plain(features)
    return convolve(conv, features, *folded.of(conv, norm))


def _follow(conv: nn.Conv2d, norm: nn.BatchNorm2d, plain: Plain, features: Tensor) -> Tensor:
    if not _is_folded(conv, norm):
        return plain(features)
    if isinstance(norm, BatchNormAct2d):
        return norm.act(norm.drop(features))  # type: ignore[no-any-return]
    return features
