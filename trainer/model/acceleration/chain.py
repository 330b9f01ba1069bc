"""A backbone as a chain of units, which can be run from where its frozen stages end."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...machine_errors import is_of_machine
from ..freezing import Stage


@dataclass(frozen=True)
class Chain:
    """Modules that, each called with what the one before gave, do all that a backbone does."""

    units: tuple[nn.Module, ...]
    """The largest modules that lie in one stage, in order."""
    stages: tuple[int, ...]
    """The stage of each unit, from 0 at the bottom."""
    taps: tuple[int, ...]
    """Positions of the units whose outputs are the backbone's maps."""

    def cut(self, depth: int) -> "Cut | None":
        """The cut below the top `depth` stages; None where nothing is left below."""
        first = bisect_left(self.stages, self.stages[-1] + 1 - depth)
        return Cut(self, first) if first else None


@dataclass(frozen=True)
class Cut:
    """Where the frozen units of a chain end."""

    chain: Chain
    first: int
    """Position of the first open unit."""

    @property
    def kept(self) -> tuple[int, ...]:
        """Positions of the frozen units whose outputs the open ones and the neck need."""
        last = max(self.chain.taps)
        boundary = {self.first - 1} if self.first <= last else set()
        return tuple(sorted(boundary | {tap for tap in self.chain.taps if tap < self.first}))

    def frozen_outputs(self, pixels: Tensor) -> list[Tensor]:
        """Run the frozen units; returns the outputs of those at `kept`, each (N, C, H, W)."""
        outputs = []
        for position, unit in enumerate(self.chain.units[: self.kept[-1] + 1]):
            pixels = unit(pixels)
            if position in self.kept:
                outputs.append(pixels)
        return outputs

    def maps(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the open units on what the frozen ones gave; returns the backbone's maps."""
        known = dict(zip(self.kept, outputs, strict=True))
        features = outputs[-1]
        for position in range(self.first, max(self.chain.taps) + 1):
            features = known[position] = self.chain.units[position](features)
        return [known[tap] for tap in self.chain.taps]


@dataclass(frozen=True)
class FrozenOutputs:
    """What the frozen units gave for the pictures of a batch."""

    cut: Cut
    tensors: list[Tensor]

    def pinned(self) -> "FrozenOutputs":
        """The same in memory from which a GPU copies while its host goes on."""
        return FrozenOutputs(self.cut, [t.pin_memory() for t in self.tensors])

    def to(self, where: torch.device) -> "FrozenOutputs":
        """The same on a device."""
        return FrozenOutputs(self.cut, [t.to(where, non_blocking=True) for t in self.tensors])

    def maps(self) -> list[Tensor]:
        """The backbone's maps."""
        return self.cut.maps(self.tensors)


@torch.no_grad()
def find_chain(backbone: nn.Module, stages: list[Stage], pixels: Tensor) -> Chain | None:
    """The chain that a backbone is, or None where its units called in a row give other maps.

    It is tried out with `pixels` (1, 3, S, S). Leaves the backbone in eval mode.
    """
    backbone.eval()
    found = list(_units(backbone, stages))
    maps = backbone(pixels)
    outputs = []
    try:
        for unit, _ in found:
            pixels = unit(pixels)
            outputs.append(pixels)
    except Exception as error:  # a net of another shape may fail in any way
        if is_of_machine(error):
            raise
        return None
    # the last one that is the same: an activation may work in place
    same = [[i for i, out in enumerate(outputs) if _is_same(out, one)] for one in maps]
    if not all(same):
        return None
    units, owners = zip(*found, strict=True)
    return Chain(units, owners, tuple(positions[-1] for positions in same))


def _units(backbone: nn.Module, stages: list[Stage]) -> Iterator[tuple[nn.Module, int]]:
    owner = {name: i for i, stage in enumerate(stages) for name in stage.modules}

    def walk(parent: nn.Module, prefix: str) -> Iterator[tuple[nn.Module, int]]:
        for name, child in parent.named_children():
            own = {owner[inner] for inner, _ in child.named_modules(prefix=prefix + name)}
            if len(own) == 1:
                yield child, own.pop()
            else:
                yield from walk(child, f"{prefix}{name}.")

    return walk(backbone, "")


def _is_same(output: Tensor, features: Tensor) -> bool:
    return output.dim() == 4 and output.shape == features.shape and torch.equal(output, features)
