"""A backbone as a chain of modules, which can be run from where its frozen stages end."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...machine_errors import is_machine_error
from ..freezing import Stage


@dataclass(frozen=True)
class Chain:
    """Modules that compute a backbone's maps when each gets the output of the one before."""

    units: tuple[nn.Module, ...]
    """The largest modules that lie in one stage, in order."""
    stages: tuple[int, ...]
    """The stage of each unit, from 0 at the bottom."""
    taps: tuple[int, ...]
    """Positions of the units whose outputs are the backbone's maps."""

    def cut(self, depth: int) -> "Cut | None":
        """Cut the chain below the top `depth` stages; None where nothing is left below."""
        first = bisect_left(self.stages, self.stages[-1] + 1 - depth)
        return Cut(self, first) if first else None


@dataclass(frozen=True)
class Cut:
    """A chain in two parts: frozen units, whose outputs can be cached, and open ones."""

    chain: Chain
    first_open: int
    """Position of the first open unit."""

    @property
    def cached(self) -> tuple[int, ...]:
        """Positions of the frozen units whose outputs the open units or the neck need."""
        last = max(self.chain.taps)
        boundary = {self.first_open - 1} if self.first_open <= last else set()
        return tuple(sorted(boundary | {tap for tap in self.chain.taps if tap < self.first_open}))

    def run_frozen(self, pixels: Tensor) -> list[Tensor]:
        """Run the frozen units on normalized pictures (N, 3, S, S).

        Returns:
            The outputs (N, C, H, W) of the units at `cached`.
        """
        outputs = []
        for position, unit in enumerate(self.chain.units[: self.cached[-1] + 1]):
            pixels = unit(pixels)
            if position in self.cached:
                outputs.append(pixels)
        return outputs

    def maps(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the open units on the outputs of `run_frozen`; returns the backbone's maps."""
        computed = dict(zip(self.cached, outputs, strict=True))
        features = outputs[-1]
        for position in range(self.first_open, max(self.chain.taps) + 1):
            features = computed[position] = self.chain.units[position](features)
        return [computed[tap] for tap in self.chain.taps]


@dataclass(frozen=True)
class FrozenFeatures:
    """The features of the frozen stages for the pictures of a batch."""

    cut: Cut
    tensors: list[Tensor]
    """One (N, C, H, W) for each of `cut.cached`."""

    def pinned(self) -> "FrozenFeatures":
        """A copy in pinned memory, from which a GPU copies without making its host wait."""
        return FrozenFeatures(self.cut, [t.pin_memory() for t in self.tensors])

    def to(self, device: torch.device) -> "FrozenFeatures":
        """A copy on a device."""
        return FrozenFeatures(self.cut, [t.to(device, non_blocking=True) for t in self.tensors])

    def maps(self) -> list[Tensor]:
        """Run the open stages; returns the backbone's maps."""
        return self.cut.maps(self.tensors)


@torch.no_grad()
def find_chain(backbone: nn.Module, stages: list[Stage], pixels: Tensor) -> Chain | None:
    """Find out whether a backbone is a chain, by running it with `pixels` (1, 3, S, S).

    Returns None where its units, called one after the other, give other maps than the backbone.
    Leaves the backbone in eval mode.
    """
    backbone.eval()
    pairs = list(_units(backbone, stages))
    maps = backbone(pixels)
    outputs = []
    try:
        for unit, _ in pairs:
            pixels = unit(pixels)
            outputs.append(pixels)
    except Exception as error:  # units that do not form a chain fail in all ways
        if is_machine_error(error):
            raise
        return None
    # the last equal output is the tap: an activation after it may work in place
    equal = [[i for i, out in enumerate(outputs) if _is_equal(out, level)] for level in maps]
    if not all(equal):
        return None
    units, unit_stages = zip(*pairs, strict=True)
    return Chain(units, unit_stages, tuple(positions[-1] for positions in equal))


def _units(backbone: nn.Module, stages: list[Stage]) -> Iterator[tuple[nn.Module, int]]:
    """The largest modules that lie in one stage, and that stage's number."""
    owner = {name: i for i, stage in enumerate(stages) for name in stage.modules}

    def walk(parent: nn.Module, prefix: str) -> Iterator[tuple[nn.Module, int]]:
        for name, child in parent.named_children():
            numbers = {owner[inner] for inner, _ in child.named_modules(prefix=prefix + name)}
            if len(numbers) == 1:
                yield child, numbers.pop()
            else:
                yield from walk(child, f"{prefix}{name}.")

    return walk(backbone, "")


def _is_equal(output: Tensor, features: Tensor) -> bool:
    return output.dim() == 4 and output.shape == features.shape and torch.equal(output, features)
