"""CUDA graphs of a training step's forward and backward pass.

A step of a small batch is some 2,000 kernels, which the host takes longer to start than a large GPU
to run: recorded once, all of them start together. Recorded is all that is of the same shapes for
every batch: the whole way from pictures to losses or, with a head that looks at proposals, to the
pyramid. Elsewhere than on a GPU nothing is recorded.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from ...machine_errors import has_lost_accelerator
from ..freezing import BATCH_NORMS
from ..losses import Truth
from .chain import Cut, FrozenOutputs

Alike = Callable[[Tensor, Truth, FrozenOutputs | None], dict[str, Tensor]]
"""What is computed alike for every batch: `Detector.alike`."""

FEWEST_BOXES = 16
"""Of a picture, for which a graph has room; it doubles where a batch has more."""

log = logging.getLogger(__name__)


class CudaGraphs:
    """The graph of one detector in its present state of freezing."""

    def __init__(self) -> None:
        self.off = False
        """Nothing is recorded: as asked for, or since no graph can hold this model."""
        self.recorded: Recorded | None = None
        """The present one."""
        self.parts: _Parts | None = None
        self.ignores = False
        """Whether there was ever a box to ignore, for which a graph has more to do."""

    def run(
        self,
        detector: nn.Module,
        alike: Alike,
        pictures: Tensor,
        truth: Truth,
        frozen: FrozenOutputs | None,
    ) -> dict[str, Tensor]:
        """What `alike`, of the detector, gives in training: from a graph where there is a GPU.

        What is of each picture may have a row more. All is overwritten by the next call, gradients
        too.
        """
        if self.off or not _is_of_graphs(pictures):
            return alike(pictures, truth, frozen)
        self.parts = self.parts or _Parts(detector)
        if self.parts.count_statistics():
            self.drop()
            return alike(pictures, truth, frozen)
        cut, kept = (frozen.cut, frozen.tensors) if frozen else (None, [])
        shapes = [tensor.shape[1:] for tensor in (pictures, *kept)]
        self.ignores |= truth.ignores
        state = (self.parts.state(), cut and cut.first, shapes, self.ignores)
        count, boxes = truth.labels.shape
        if not self.recorded or not self.recorded.fits(state, count, boxes):
            detector.zero_grad()  # gradients lie in the memory of the graph before
            self.drop()
            room = truth.filled_up(count, _room(boxes))
            try:
                self.recorded = _record(
                    _Alike(detector, alike, cut, self.ignores),
                    [pictures, room.boxes, room.labels, *kept],
                    state,
                )
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # whatever a backbone does that no graph can hold
                if has_lost_accelerator():
                    raise
                log.warning("no CUDA graph of this model: %s", error)
                self.off = True
        if not self.recorded:
            return alike(pictures, truth, frozen)
        return self.recorded.filled_up(pictures, truth, kept)

    def drop(self) -> None:
        """Free the memory of the present graph, which holds itself."""
        if self.recorded:
            self.recorded = None
            gc.collect()


@dataclass(frozen=True)
class Recorded:
    """A graph, and what it is of."""

    run: Callable[..., dict[str, Tensor]]
    state: object
    count: int
    """Pictures of its batch."""
    boxes: int
    """Most that a picture may have."""

    def fits(self, state: object, count: int, boxes: int) -> bool:
        """Whether it is of that state and, but for a picture, of a batch as large: some batches of
        an epoch have one less, and a graph of their own would keep as much memory once more."""
        return state == self.state and count in (self.count - 1, self.count) and boxes <= self.boxes

    def filled_up(
        self, pictures: Tensor, truth: Truth, kept: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Run it, with nothing in the place of a picture and of boxes that a batch lacks."""
        if len(pictures) < self.count:
            pictures, *kept = (torch.cat([tensor, tensor[-1:]]) for tensor in (pictures, *kept))
        room = truth.filled_up(self.count, self.boxes)
        return self.run(pictures, room.boxes, room.labels, *kept)


class _Alike(nn.Module):
    """What is recorded, as the module that `make_graphed_callables` wants: of tensors alone."""

    def __init__(self, detector: nn.Module, alike: Alike, cut: Cut | None, ignores: bool) -> None:
        super().__init__()
        self.detector = detector  # for its parameters
        self.alike = alike
        self.cut = cut
        self.ignores = ignores
        self.found: dict[str, Tensor] = {}

    def forward(
        self, pictures: Tensor, boxes: Tensor, labels: Tensor, *kept: Tensor
    ) -> dict[str, Tensor]:
        frozen = FrozenOutputs(self.cut, list(kept)) if self.cut else None
        self.found = self.alike(pictures, Truth(boxes, labels, self.ignores), frozen)
        return self.found


def _room(boxes: int) -> int:
    """Boxes of a picture for which a graph is recorded."""
    return max(FEWEST_BOXES, 1 << (boxes - 1).bit_length())


def _is_of_graphs(pictures: Tensor) -> bool:
    return pictures.is_cuda and torch.is_grad_enabled()


class _Parts:
    """What a detector consists of, found once: that takes longer than to start a graph."""

    def __init__(self, detector: nn.Module) -> None:
        self.parameters = list(detector.parameters())
        self.modules = list(detector.modules())
        self.norms = [own for own in self.modules if isinstance(own, BATCH_NORMS)]
        self.drop_paths = [own for own in self.modules if isinstance(own, DropPath)]

    def count_statistics(self) -> bool:
        """Whether a norm follows the batch, which then may not be filled up."""
        return any(own.training for own in self.norms)

    def state(self) -> object:
        """What a graph depends on besides its inputs and the values of parameters."""
        return (
            [(own.requires_grad, own.data_ptr()) for own in self.parameters],
            [own.training for own in self.modules],
            [own.drop_prob for own in self.drop_paths],
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
    for tensor in module.found.values():
        tensor.detach_()  # else parameters' gradients would go on by way of the recording's stream
    # out of the module, which it holds
    return Recorded(module.__dict__.pop("forward"), state, *inputs[2].shape)
