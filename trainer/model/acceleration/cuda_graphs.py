"""CUDA graphs of a training step's forward and backward pass.

A step of a small batch is some 2,000 kernels, and to launch them takes the host longer than a large
GPU needs to run them. Recorded once as a graph, all of them are launched together.

A graph holds everything whose shapes are the same for every batch: the way from pictures to losses
or, for a head with proposals, to the pyramid. On a CPU nothing is recorded.
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
from ..matching import BatchTargets
from .chain import Cut, FrozenFeatures

StaticLosses = Callable[[Tensor, BatchTargets, FrozenFeatures | None], dict[str, Tensor]]
"""The type of `Detector.static_losses`."""

FEWEST_BOXES = 16
"""Boxes a picture that a graph has room for at least; the room doubles where a batch has more."""

log = logging.getLogger(__name__)


class CudaGraphs:
    """The current graph of one detector; a new one is recorded when its freeze state changes."""

    def __init__(self) -> None:
        self.off = False
        """Nothing is recorded: a caller turned it off, or the model does operations that no graph
        can hold."""
        self.recorded: RecordedGraph | None = None
        """The current graph."""
        self.parts: _Parts | None = None
        self.has_ignored = False
        """Whether any batch so far had an ignored box; a graph then has more to do."""

    def run(
        self,
        detector: nn.Module,
        static_losses: StaticLosses,
        pictures: Tensor,
        targets: BatchTargets,
        frozen: FrozenFeatures | None,
    ) -> dict[str, Tensor]:
        """Run a detector's `static_losses` in training, on a GPU from a graph.

        The next call overwrites the results and the gradients. Results with a row for each picture
        may have one row more than the batch.
        """
        if self.off or not _can_record(pictures):
            return static_losses(pictures, targets, frozen)
        self.parts = self.parts or _Parts(detector)
        if self.parts.adapt_statistics():
            self.drop()
            return static_losses(pictures, targets, frozen)
        self.has_ignored |= targets.has_ignored
        cut, features = (frozen.cut, frozen.tensors) if frozen else (None, [])
        shapes = [tensor.shape[1:] for tensor in (pictures, *features)]
        state = (self.parts.state(), cut and cut.first_open, shapes, self.has_ignored)
        if not self.recorded or not self.recorded.fits(state, *targets.labels.shape):
            module = _StaticLossesModule(detector, static_losses, cut, self.has_ignored)
            self._record_anew(module, pictures, targets, features, state)
        if not self.recorded:
            return static_losses(pictures, targets, frozen)
        return self.recorded.run_padded(pictures, targets, features)

    def _record_anew(
        self,
        module: "_StaticLossesModule",
        pictures: Tensor,
        targets: BatchTargets,
        features: Sequence[Tensor],
        state: object,
    ) -> None:
        """Replace the current graph; turns recording off where no graph can hold the model."""
        module.detector.zero_grad()  # gradients lie in the memory of the old graph
        self.drop()
        count, boxes = targets.labels.shape
        room = targets.padded_to(count, _room(boxes))
        try:
            self.recorded = _record(module, [pictures, room.boxes, room.labels, *features], state)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # backbones of all kinds do operations that no graph can hold
            if has_lost_accelerator():
                raise
            log.warning("no CUDA graph of this model: %s", error)
            self.off = True

    def drop(self) -> None:
        """Free the memory of the current graph, which is part of a reference cycle."""
        if self.recorded:
            self.recorded = None
            gc.collect()


@dataclass(frozen=True)
class RecordedGraph:
    """A graph, and what it was recorded for."""

    run: Callable[..., dict[str, Tensor]]
    state: object
    count: int
    """Pictures of its batch."""
    boxes: int
    """Most boxes that a picture may have."""

    def fits(self, state: object, count: int, boxes: int) -> bool:
        """Whether the graph can run a batch.

        A batch may have one picture less than the graph: some batches of an epoch do, and a second
        graph for these would take as much memory again.
        """
        return state == self.state and count in (self.count - 1, self.count) and boxes <= self.boxes

    def run_padded(
        self, pictures: Tensor, targets: BatchTargets, features: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Run the graph, with padding for the picture and the boxes that a batch lacks."""
        if len(pictures) < self.count:
            pictures, *features = (
                torch.cat([tensor, tensor[-1:]]) for tensor in (pictures, *features)
            )
        room = targets.padded_to(self.count, self.boxes)
        return self.run(pictures, room.boxes, room.labels, *features)


class _StaticLossesModule(nn.Module):
    """`static_losses` as `make_graphed_callables` needs it: a module that takes tensors alone."""

    def __init__(
        self, detector: nn.Module, static_losses: StaticLosses, cut: Cut | None, has_ignored: bool
    ) -> None:
        super().__init__()
        self.detector = detector  # for its parameters
        self.static_losses = static_losses
        self.cut = cut
        self.has_ignored = has_ignored
        self.results: dict[str, Tensor] = {}

    def forward(
        self, pictures: Tensor, boxes: Tensor, labels: Tensor, *features: Tensor
    ) -> dict[str, Tensor]:
        frozen = FrozenFeatures(self.cut, list(features)) if self.cut else None
        targets = BatchTargets(boxes, labels, self.has_ignored)
        self.results = self.static_losses(pictures, targets, frozen)
        return self.results


def _room(boxes: int) -> int:
    """Boxes a picture that a new graph has room for: the next power of two."""
    return max(FEWEST_BOXES, 1 << (boxes - 1).bit_length())


def _can_record(pictures: Tensor) -> bool:
    return pictures.is_cuda and torch.is_grad_enabled()


class _Parts:
    """A detector's modules and parameters, listed once: that takes longer than a graph's launch."""

    def __init__(self, detector: nn.Module) -> None:
        self.parameters = list(detector.parameters())
        self.modules = list(detector.modules())
        self.norms = [module for module in self.modules if isinstance(module, BATCH_NORMS)]
        self.drop_paths = [module for module in self.modules if isinstance(module, DropPath)]

    def adapt_statistics(self) -> bool:
        """Whether a norm uses the statistics of its batch, which then may not be padded."""
        return any(norm.training for norm in self.norms)

    def state(self) -> object:
        """What a graph depends on, besides its inputs and the values of parameters."""
        return (
            [(parameter.requires_grad, parameter.data_ptr()) for parameter in self.parameters],
            [module.training for module in self.modules],
            [drop_path.drop_prob for drop_path in self.drop_paths],
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
            torch.backends.cudnn.allow_tf32,
        )


def _record(module: _StaticLossesModule, inputs: list[Tensor], state: object) -> RecordedGraph:
    """Record a graph, and leave the random numbers as they were.

    A trial that goes on after a break records at another step, and must draw the same numbers.
    """
    device = inputs[0].device
    samples = tuple(tensor.clone(memory_format=torch.preserve_format) for tensor in inputs)
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    random_state = torch.cuda.get_rng_state(device)
    try:
        with (
            # restores the current stream where a recording fails
            torch.cuda.stream(torch.cuda.current_stream(device)),
            torch.autocast("cuda", dtype, enabled, cache_enabled=False),
        ):
            torch.cuda.make_graphed_callables(
                module,
                samples,
                allow_unused_input=True,
                capture_error_mode="thread_local",  # other threads load batches meanwhile
            )
    except RuntimeError:
        # a generator gives no more numbers after a recording that failed
        fresh = torch.Generator(device).graphsafe_get_state()
        torch.cuda.default_generators[device.index or 0].graphsafe_set_state(fresh)
        raise
    finally:
        torch.cuda.set_rng_state(random_state, device)
    for tensor in module.results.values():
        tensor.detach_()  # else gradients of parameters would go through the recording's stream
    # out of the module, which it holds a reference to
    return RecordedGraph(module.__dict__.pop("forward"), state, *inputs[2].shape)
