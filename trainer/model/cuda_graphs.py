"""CUDA graphs of a training step's forward and backward pass, up to where boxes are looked at.

A step of a small batch is some 2,000 kernels, which the host takes longer to start than a large GPU
to run: recorded once, all of them start together. Recorded is what is the same for all pictures:
trunk, neck and the head's convolutions. Losses stay outside, for each picture has boxes of its own.
Elsewhere than on a GPU nothing is recorded.
"""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .chain import Cut, FrozenOutputs
from .freezing import BATCH_NORMS
from .heads import Outputs

Alike = Callable[[Tensor, FrozenOutputs | None], Outputs]
"""What is computed alike for all pictures: `Detector.outputs`."""

log = logging.getLogger(__name__)


class CudaGraphs:
    """The graph of one detector in its present state of freezing."""

    def __init__(self) -> None:
        self.off = False
        """Nothing is recorded: as asked for, or since no graph can hold this model."""
        self.recorded: Recorded | None = None
        """The present one."""

    def outputs(
        self, detector: nn.Module, alike: Alike, pictures: Tensor, frozen: FrozenOutputs | None
    ) -> Outputs:
        """What `alike`, of the detector, gives in training: from a graph where there is a GPU.

        They and their gradients are overwritten by the next call.
        """
        if self.off or not _is_of_graphs(pictures):
            return alike(pictures, frozen)
        if _counts_statistics(detector):
            self.drop()
            return alike(pictures, frozen)
        cut, inputs = (frozen.cut, [pictures, *frozen.tensors]) if frozen else (None, [pictures])
        state = (_state(detector), cut and cut.first, [tensor.shape[1:] for tensor in inputs])
        if not self.recorded or not self.recorded.fits(state, len(pictures)):
            detector.zero_grad()  # gradients lie in the memory of the graph before
            self.drop()
            try:
                self.recorded = _record(_Alike(detector, alike, cut), inputs, state)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # whatever a backbone does that no graph can hold
                log.warning("no CUDA graph of this model: %s", error)
                self.off = True
        if not (recorded := self.recorded):
            return alike(pictures, frozen)
        found = recorded.run(*[_fill_up(tensor, recorded.count) for tensor in inputs])
        own = {name: tensor[: len(pictures)] for name, tensor in found.items()}
        return Outputs(own, recorded.sizes)

    def drop(self) -> None:
        """Free the memory of the present graph, which holds itself."""
        if self.recorded:
            self.recorded = None
            gc.collect()


@dataclass(frozen=True)
class Recorded:
    """A graph, and what it is of."""

    run: Callable[..., dict[str, Tensor]]
    sizes: tuple[tuple[int, int], ...]
    state: object
    count: int
    """Pictures of its batch."""

    def fits(self, state: object, count: int) -> bool:
        """Whether it is of that state and, but for a picture, of a batch as large: some batches of
        an epoch have one less, and a graph of their own would keep as much memory once more."""
        return state == self.state and count in (self.count - 1, self.count)


class _Alike(nn.Module):
    """What is recorded, as the module that `make_graphed_callables` wants: of tensors alone."""

    def __init__(self, detector: nn.Module, alike: Alike, cut: Cut | None) -> None:
        super().__init__()
        self.detector = detector  # for its parameters
        self.alike = alike
        self.cut = cut
        self.found = Outputs({}, ())

    def forward(self, pictures: Tensor, *kept: Tensor) -> dict[str, Tensor]:
        frozen = FrozenOutputs(self.cut, list(kept)) if self.cut else None
        self.found = self.alike(pictures, frozen)
        return self.found.tensors


def _is_of_graphs(pictures: Tensor) -> bool:
    return pictures.is_cuda and torch.is_grad_enabled()


def _counts_statistics(detector: nn.Module) -> bool:
    """Whether a norm follows the batch, which then may not be filled up."""
    return any(own.training for own in detector.modules() if isinstance(own, BATCH_NORMS))


def _state(detector: nn.Module) -> object:
    """What a graph depends on besides its inputs and the values of parameters."""
    return (
        [(own.requires_grad, own.data_ptr()) for own in detector.parameters()],
        [(own.training, getattr(own, "drop_prob", None)) for own in detector.modules()],
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        torch.backends.cudnn.allow_tf32,
    )


def _record(module: _Alike, inputs: list[Tensor], state: object) -> Recorded:
    """Record it, and draw no random numbers: a step has the same in a trial that goes on."""
    where = inputs[0].device
    own = tuple(tensor.clone(memory_format=torch.preserve_format) for tensor in inputs)
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    random = torch.cuda.get_rng_state(where)
    try:
        with (
            torch.cuda.stream(torch.cuda.current_stream(where)),  # what fails leaves its own
            torch.autocast("cuda", dtype, enabled, cache_enabled=False),
        ):
            torch.cuda.make_graphed_callables(
                module,
                own,
                allow_unused_input=True,
                capture_error_mode="thread_local",  # others make batches meanwhile
            )
    except RuntimeError:
        # a generator that is left in the middle of a recording gives no more numbers
        fresh = torch.Generator(where).graphsafe_get_state()
        torch.cuda.default_generators[where.index or 0].graphsafe_set_state(fresh)
        raise
    finally:
        torch.cuda.set_rng_state(random, where)
    for tensor in module.found.tensors.values():
        tensor.detach_()  # else parameters' gradients would go on by way of the recording's stream
    # out of the module, which it holds
    return Recorded(module.__dict__.pop("forward"), module.found.sizes, state, len(own[0]))


def _fill_up(tensor: Tensor, count: int) -> Tensor:
    missing = count - len(tensor)
    return torch.cat([tensor, *[tensor[-1:]] * missing]) if missing else tensor
