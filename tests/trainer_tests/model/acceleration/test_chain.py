"""Backbones as chains: cut where the frozen stages end, they give the maps of the backbone."""

import pytest
import torch
from torch import Tensor, nn

from trainer.model.acceleration.chain import FrozenFeatures, find_chain
from trainer.model.backbones import build
from trainer.model.freezing import split_stages


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_the_maps_are_the_same_bits_when_cut_at_any_depth(name: str) -> None:
    torch.manual_seed(0)
    backbone = build(name, "none")
    pixels = torch.randn(1, 3, 64, 64)
    chain = find_chain(backbone.module, backbone.stages, pixels)
    assert chain is not None
    with torch.no_grad():
        expected = backbone.module(pixels)
        for depth in range(5):
            cut = chain.cut(depth)
            assert cut is not None
            maps = FrozenFeatures(cut, cut.run_frozen(pixels)).maps()
            assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    assert chain.cut(5) is None  # nothing is frozen


class Skips(nn.Module):
    """The second layer gets more than the output of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 3, 1)
        self.high = nn.Conv2d(3, 3, 1)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return [self.high(self.low(pixels) + pixels)]


class Fails(nn.Module):
    """A net that runs as one, and fails when its layers are called one by one."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 3, 1)
        self.error = error

    def forward(self, pixels: Tensor) -> list[Tensor]:
        self.low.register_forward_pre_hook(self.fail)
        return [pixels]

    def fail(self, *_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.AcceleratorError("CUDA error: launch failure")], ids=repr
)
def test_an_error_of_the_machine_says_nothing_about_a_net(error: Exception) -> None:
    net = Fails(error)
    with pytest.raises(type(error)):
        find_chain(net, split_stages(net, ["low"]), torch.randn(1, 3, 8, 8))
    net = Fails(ValueError("other shapes"))
    assert find_chain(net, split_stages(net, ["low"]), torch.randn(1, 3, 8, 8)) is None


def test_a_net_that_is_no_chain_is_recognized() -> None:
    net = Skips()
    stages = split_stages(net, ["low", "high"])
    assert find_chain(net, stages, torch.randn(1, 3, 8, 8)) is None
