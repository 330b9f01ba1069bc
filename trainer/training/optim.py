"""The optimizer with its named parameter groups, and the average of what it trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..config import Train
from ..epoch_report import GroupReport
from ..model.detectors import Detector
from ..model.freezing import BATCH_NORMS

NO_DECAY = " no decay"
"""Suffix of the groups of norms and biases, which have no weight decay."""


def build(detector: Detector, train: Train) -> torch.optim.Optimizer:
    """An optimizer over all parameters, frozen ones included.

    The groups are `stage1`, ..., `neck` and `head`, each with a second one, `... no decay`, for
    norms and biases. An optimizer skips parameters without a gradient. So the groups stay the same
    when a stage is unfrozen or a trial resumes.
    """
    groups = [
        {"name": name, "params": parameters, "lr": 0.0}
        for name, parameters in _named_groups(detector)
        if parameters
    ]
    if train.optimizer == "sgd":
        # fused SGD is not faster on a CPU; when the fp16 scaler skips the first step, it would go
        # on from uninitialized momentum
        fused = detector.mean.is_cuda and train.precision != "fp16"
        momentum = train.momentum
        return torch.optim.SGD(
            groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=fused
        )
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def _named_groups(detector: Detector) -> Iterator[tuple[str, list[nn.Parameter]]]:
    parts = {
        f"stage{i}": [detector.backbone.get_parameter(name) for name in stage.parameters]
        for i, stage in enumerate(detector.stages, start=1)
    }
    parts["neck"] = list(detector.neck.parameters())
    parts["head"] = list(detector.head.parameters())
    for name, parameters in parts.items():
        # norms and biases are the parameters of one dimension
        yield name, [p for p in parameters if p.ndim > 1]
        yield name + NO_DECAY, [p for p in parameters if p.ndim <= 1]


def report_groups(optimizer: torch.optim.Optimizer) -> dict[str, GroupReport]:
    """The current settings of each group, by its name."""
    return {
        group["name"]: GroupReport(
            lr=float(group["lr"]),
            weight_decay=float(group["weight_decay"]),
            trainable=sum(p.numel() for p in group["params"] if p.requires_grad),
        )
        for group in optimizer.param_groups
    }


class WeightAverage:
    """The exponential moving average (EMA) of everything that changes in training.

    That is the trainable parameters, and the statistics of BatchNorms that follow the batches, so
    that weights and statistics fit together. What is frozen is equal to its average.

    It is no second detector, as torch's `AveragedModel` is: cached features and folded norms refer
    to the modules of the one that trains. For evaluation the averages take the place of the weights
    in their memory, where a CUDA graph expects them too.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._averages: dict[Tensor, Tensor] = {}
        """By the tensor that trains."""

    def include_trainable(self) -> None:
        """Average what trains in the current freeze state; new averages start from its values."""
        for tensor in _changing(self._detector):
            if tensor not in self._averages:
                self._averages[tensor] = tensor.detach().clone()

    def update(self, decay: float) -> None:
        """Average over the step that was just taken; `decay` is what the former average weighs."""
        if self._averages:
            averages, tensors = list(self._averages.values()), list(self._averages)
            get_ema_multi_avg_fn(decay)(averages, tensors, 0)  # type: ignore[no-untyped-call]

    @contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Run a block with the averaged detector; afterwards all weights have their bits again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for tensor, average in self._averages.items():
            weights = tensor.clone()
            tensor.copy_(average)
            average.copy_(weights)

    def state(self) -> dict[str, Tensor]:
        """The averages on the CPU, under the names of the detector's tensors; empty for none."""
        return {
            name: self._averages[tensor].cpu()
            for name, tensor in self._detector.state_dict(keep_vars=True).items()
            if tensor in self._averages
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the averages of a checkpoint."""
        tensors = self._detector.state_dict(keep_vars=True)
        self._averages = {
            tensors[name]: torch.empty_like(tensors[name]).copy_(average)
            for name, average in state.items()
        }


def _changing(detector: Detector) -> Iterator[Tensor]:
    """The tensors that a step changes in the current freeze state."""
    yield from (parameter for parameter in detector.parameters() if parameter.requires_grad)
    for module in detector.modules():
        if isinstance(module, BATCH_NORMS) and module.training:
            yield from (b for b in module.buffers(recurse=False) if b.is_floating_point())


def ema_decay(limit: float, step: int) -> float:
    """The decay of the average at a step, which rises to `limit`.

    Without it the first weights would weigh most for long. The formula is that of TensorFlow's
    `tf.train.ExponentialMovingAverage` with `num_updates`.

    Args:
        limit: The highest decay.
        step: Number of the step in the trial, from 0.
    """
    return min(limit, (1 + step) / (10 + step))
